#pragma once

#include <functional>
#include <vector>

#include "base/linear_algebra.h"
#include "quant/calibrate/calibration.h"
#include "quant/grid/quantized_matrix.h"
#include "quant/methods/editable_model.h"
#include "quant/methods/warnings.h"

namespace qeval::quant {

/// AWQ's scales (Lin et al., arXiv 2306.00978), on every ScaleEdge of the model whose consumers have weights
/// of 8 bits or fewer: channel j of the consumers' input is divided, their columns multiplied, by s_j = x_j^r
/// / (w_j^(1−r) + 1e-4), x_j the mean magnitude of the input on the samples, w_j the mean over rows of the
/// weights' magnitudes as parts of their group's largest, all divided by √(max s · min s) (AutoAWQ's "duo"
/// form). Of r = 0, 0.05 … 0.95 and of no scaling at all, what changes the consumers' outputs least when
/// their weights are rounded to nearest on min-max grids: Σ ‖X(W − Q(W·s)/s)ᵀ‖² over the consumers, from X's
/// products. A channel without a signal or weights keeps its scale. Inputs are those of the float model;
/// activations stay in float in the search, whatever the scheme makes of them. Returns what is to be said of
/// unusual scales (ScaleCheck). `progress`: blocks done and in all.
std::vector<Warning> scale_by_activations(EditableModel& model, const QuantConfig& qcfg,
                                          const Samples& samples,
                                          const std::function<void(int64_t, int64_t)>& progress = {});

/// The grids of WeightRange::output: per grid of f·[lo, hi], f = 1, 0.95 … 0.5, the first that has the least
/// Σ d H dᵀ, d the rounding's errors of the elements that share the grid (of each row), H the products of
/// their inputs (the lower triangle of `lower`): AWQ's clipping.
std::vector<Grid> output_grids(const model::Matrix& matrix, const QuantSpec& spec, const RowMatrix& lower);

}  // namespace qeval::quant
