#pragma once

#include <string>
#include <vector>

#include "reports/render/svg.h"
#include "reports/report.h"

namespace qeval::reports {

/// The plots that the report has figures for, in order: perplexity against size; the differences with their
/// intervals, one plot per column; error per layer; training loss, one plot per run that learned. What is not
/// finite is left out of a plot, or named where it would stand.
std::vector<Plot> make_plots(const Report& report);

}  // namespace qeval::reports
