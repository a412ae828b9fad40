#pragma once

// The steps of build_report(), in the order in which they run.

#include <span>
#include <string>
#include <vector>

#include "eval/results/comparison.h"
#include "reports/report.h"
#include "reports/source.h"

namespace qeval::reports {

/// Fills in protocol, columns, details, and a row per source (labels, costs, hashes, values); sources[0] is
/// the baseline if there is one. Throws Error where protocols differ.
void lay_out(std::span<const Source> sources, Report& report);

/// Adds the differences of rows 1 … from row 0: `comparison.runs` are the rows after the first, in order.
void add_differences(const eval::Comparison& comparison, Report& report);

/// Nearness on the comparison's text, else on the tasks' scored positions; flips over all tasks; recovery.
void add_nearness(const SourceList& sources, const eval::Comparison& comparison, Report& report);

/// Documents that are right in one of two runs only, or whose text ends in the baseline only, with their text
/// from the samples files: of each row and column the first few.
void add_examples(std::span<const Source> sources, const eval::Comparison& comparison, Report& report);

/// At most five sentences: what the runs cost by the sharpest measure that there is, which one is best and
/// what is tied with it, significant losses, equivalence as far as it is shown, and what could not be told.
std::vector<std::string> verdict(const Report& report);

/// What limits the figures: few documents, not-a-number, speeds of different machines…
std::vector<std::string> notes(const SourceList& sources, const Report& report);

/// The paper's tables for the report's model.
std::vector<PaperTable> paper_tables(const Report& report);

}  // namespace qeval::reports
