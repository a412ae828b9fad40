#pragma once

#include <string>

#include "eval/results/results.h"

namespace qeval::eval {

/// The results as a plain-text table for a terminal: task, few-shot, metric with an arrow to the better side,
/// value, ± standard error, documents; one row per metric, tasks in order, groups after them. Ends in a
/// newline.
std::string render_table(const RunResults& run);

/// A score as tables show it: four decimals, or four significant digits from 1000 on; "nan", "inf".
std::string format_score(double value);

}  // namespace qeval::eval
