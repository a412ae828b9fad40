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

/// Documents that are right in one of two runs only, with their text from the samples files: of each row and
/// column the first few.
void add_examples(std::span<const Source> sources, const eval::Comparison& comparison, Report& report);

/// One sentence per compared run, after one per scheme that names its best method.
std::vector<std::string> verdict(const Report& report);

/// What limits the figures: few documents, not-a-number, speeds of different machines…
std::vector<std::string> notes(const SourceList& sources, const Report& report);

/// The paper's tables for the report's model.
std::vector<PaperTable> paper_tables(const Report& report);

}  // namespace qeval::reports
