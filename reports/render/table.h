#pragma once

#include <optional>
#include <string>
#include <vector>

#include "reports/report.h"

namespace qeval::reports {

/// Tables of the report as text, without the marks of any format: Markdown, HTML and LaTeX show the same
/// ones. All texts are raw; whoever writes them into a document escapes them.

enum class Tone : uint8_t { neutral, worse, better };

struct TableCell {
  std::string text;                 ///< "33.0"
  std::string error = {};           ///< "± 1.4"
  std::string second = {};          ///< a second line: "−1.2 **"
  Tone tone = Tone::neutral;        ///< of the second line
  std::optional<double> sort = {};  ///< what orders the column; absent: the text
};

struct Heading {
  std::string title;
  std::string detail = {};  ///< a second line: "acc_norm, % ↑, n = 1,172"
  bool numeric = true;      ///< aligned on the right
};

struct Table {
  std::string id;            ///< "scores"
  std::string caption = {};  ///< what it shows and how to read it
  std::vector<Heading> headings = {};
  std::vector<std::vector<TableCell>> rows = {};  ///< each as long as headings
};

/// The layout of the paper: methods and schemes down, tasks across; value ± standard error, below it the
/// difference from the baseline with its mark. Rows of the same method, scheme and arithmetic are called by
/// their labels.
Table score_table(const Report& report);
/// The same comparisons in figures: interval, p, adjusted p.
Table comparison_table(const Report& report);
Table cost_table(const Report& report);
Table flip_table(const Report& report);
/// What every run loses and takes: divergence with its interval, size, speed, recovery; the nearest first.
Table nearness_table(const Report& report);
Table losses_table(const Report& report);
Table divergence_table(const Report& report);
Table text_table(const Report& report);
Table layer_table(const Report& report);
/// Every metric of every task.
Table detail_table(const Report& report);
Table protocol_table(const Report& report);
/// Hashes, machine and version of every run.
Table run_table(const Report& report);
Table paper_table(const PaperTable& paper);

}  // namespace qeval::reports
