#pragma once

#include <string>
#include <vector>

#include "reports/render/svg.h"
#include "reports/render/table.h"
#include "reports/report.h"

namespace qeval::reports {

/// A part of the report, as Markdown and HTML both show it. Texts are raw.
struct Section {
  std::string id;       ///< "scores"
  std::string heading;  ///< "Scores"
  std::vector<std::string> paragraphs = {}, list = {};
  std::vector<Table> tables = {};
  std::vector<Plot> plots = {};
  struct Code {
    std::string label;  ///< the run
    std::string text;
  };
  std::vector<Code> code = {};
  bool examples = false;  ///< where HTML shows the flipped documents
};

struct Document {
  std::string title;
  std::vector<std::string> verdict;
  std::string facts;              ///< protocol, prefix, lengths: one line
  std::vector<Section> sections;  ///< those that have content
};

Document make_document(const Report& report);

std::string to_markdown(const Document& document, const std::string& plot_stem);
/// LaTeX of the table of scores, in booktabs' style, to \input.
std::string to_latex(const Report& report);
/// A line per run and column of the main table, numbers in full.
std::string to_csv(const Report& report);
/// A part of a model card: front matter with a `model-index` entry per run, values with protocol and version,
/// and a table of scores with recovery and divergence.
std::string to_card(const Report& report);
/// A run's scores as a file of Hugging Face's `.eval_results` folder has them; empty where none of its tasks
/// is a data set of the hub.
std::string to_evaluation_results(const Report& report, const Row& row);
/// Everything: the runs' results and comparisons as eval::to_json(Comparison) has them, and the report's
/// rows, verdict and notes under "report". Without the examples, which are text of a data set.
std::string to_json_text(const Report& report);
/// One page without anything from elsewhere.
std::string to_html(const Document& document, const Report& report);

/// The file of a plot beside the Markdown: STEM-ID.svg.
std::string plot_file(const std::string& plot_stem, const Plot& plot);

}  // namespace qeval::reports
