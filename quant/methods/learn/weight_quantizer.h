#pragma once

#include <vector>

#include "quant/grid/quantizer.h"
#include "quant/methods/learn/matrix.h"
#include "quant/methods/learn/train_kernels.h"

namespace qeval::quant {

/// A weight matrix [rows, cols] seen through its equivalent transformation (docs/specification.md#methods,
/// LET): w'ᵢⱼ = wᵢⱼ · column_multiplierⱼ / column_divisorⱼ / row_divisorᵢ · row_multiplierᵢ; null factors
/// are 1. A norm's weight is a matrix of one row.
template <typename Real>
struct TransformedWeight {
  const Real* data = nullptr;
  int64_t rows = 0, cols = 0;
  const Real* column_multiplier = nullptr;
  const Real* column_divisor = nullptr;
  const Real* row_divisor = nullptr;
  const Real* row_multiplier = nullptr;
  /// A factor for each grid of codes that stay (`group` columns of a row; per tensor: of all rows): w' = w ·
  /// factor, which scales the grid. null: weights that are rounded here.
  const Real* grid_factor = nullptr;
  int64_t group = 0;
  bool per_tensor = false;

  int64_t factor_index(int64_t r, int64_t group_index) const {
    return per_tensor ? 0 : r * ((cols + group - 1) / group) + group_index;
  }
  /// Whether w' is the stored weight.
  bool plain() const {
    return column_multiplier == nullptr && column_divisor == nullptr && row_divisor == nullptr &&
           row_multiplier == nullptr && grid_factor == nullptr;
  }
  /// Row r of w': in `room` [cols], or the stored one where nothing changes it.
  const Real* row(int64_t r, Real* room) const;
};

/// Learnable weight clipping: range = [σ(lower) · min w', σ(upper) · max w'], a pair per grid; null: the
/// range of the weight itself.
template <typename Real>
struct Clipping {
  const Real* upper = nullptr;
  const Real* lower = nullptr;
};

/// The grids of a weight, one per row where per channel, else one.
template <typename Real>
struct WeightGrids {
  std::vector<MinMax<Real>> rows;     ///< of each row of w', where all rows have one grid
  std::vector<MinMax<Real>> range;    ///< of the part of w' that has the grid
  std::vector<MinMax<Real>> clipped;  ///< after LWC
  std::vector<LeafGrid<Real>> grid;   ///< scale clamped to [1e-5, 1e6], offset rounded
};

/// Throws nothing; a NaN in the weights shows in the grids. Parallel. Groups and dynamic weights are not
/// learned: precondition spec.group_size < 0. `transformed` [rows, cols], if given, receives w' (where the
/// spec is disabled, nothing); then precondition: the weight is not plain().
template <typename Real>
WeightGrids<Real> weight_grids(const TransformedWeight<Real>& weight, const QuantSpec& spec,
                               const Clipping<Real>& clipping, Real* transformed = nullptr);

/// out [rows, cols] ← the fake-quantized w', or w' itself where the spec is disabled. Parallel. `transformed`
/// [rows, cols], if given, receives w' in either case (precondition: the weight is not plain()); it must not
/// be `out`, which may be the weight itself.
template <typename Real>
void quantize_weight(const TransformedWeight<Real>& weight, const QuantSpec& spec,
                     const WeightGrids<Real>& grids, Real* out, Real* transformed = nullptr);

/// Where the gradients go; null: not wanted. All are added to.
template <typename Real>
struct WeightGradients {
  Real* upper = nullptr;
  Real* lower = nullptr;
  Real* column_multiplier = nullptr;
  Real* column_divisor = nullptr;
  Real* row_divisor = nullptr;
  Real* row_multiplier = nullptr;
  Real* grid_factor = nullptr;
  Real* code = nullptr;  ///< [rows, cols], of the weights themselves, factors aside
};

/// Backward of quantize_weight ∘ weight_grids. `transformed` is w' as quantize_weight wrote it (null: it is
/// not there any more); `gradient` [rows, cols] is dL/d(quantized weight) on entry and scratch afterwards.
/// The rounding of the offset passes nothing: the range's ends get their gradient through the scale alone,
/// shared equally between equal extremes of w'. Deterministic: partial sums over fixed stretches of rows are
/// added in order. Parallel.
template <typename Real>
void quantize_weight_backward(const TransformedWeight<Real>& weight, const QuantSpec& spec,
                              const Clipping<Real>& clipping, const WeightGrids<Real>& grids,
                              const Real* transformed, Real* gradient, const WeightGradients<Real>& out);

template <typename Real>
Real logistic(Real x);

}  // namespace qeval::quant
