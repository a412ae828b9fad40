#pragma once

#include <string>
#include <vector>

#include "reports/render/svg.h"
#include "reports/report.h"

namespace qeval::reports {

/// What a run takes against what it loses, as far as the report has figures: size against divergence
/// ("pareto-size") and speed against divergence ("pareto-speed"), each with intervals and the Pareto front;
/// size against perplexity ("perplexity").
std::vector<Plot> scatter_plots(const Report& report);

/// "pareto-size" in characters, for a terminal: a letter per run and what the letters stand for, the front
/// marked. Empty where there are fewer than two points.
std::string terminal_plot(const Report& report);

/// Indices of the rows that no other row beats in both size and divergence (smaller or equal in both, and in
/// one of them smaller), by size. Rows without either figure, and the baseline, take no part.
std::vector<size_t> size_front(const Report& report);

}  // namespace qeval::reports
