#pragma once

#include <string>
#include <vector>

#include "eval/results/results.h"

namespace qeval::eval {

/// The results as a plain-text table for a terminal: task, few-shot, metric with an arrow to the better side,
/// value, ± standard error, documents; one row per metric, tasks in order, groups after them. Ends in a
/// newline.
std::string render_table(const RunResults& run);

/// A score as tables show it: four decimals, or four significant digits from 1000 on; "nan", "inf".
std::string format_score(double value);

/// Rows of equally many cells as columns of text, a line under the first row.
std::string render_rows(const std::vector<std::vector<std::string>>& rows,
                        const std::vector<bool>& right_aligned);

}  // namespace qeval::eval
