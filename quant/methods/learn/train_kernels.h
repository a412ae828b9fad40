#pragma once

#include <cstdint>

#include "model/kernels/cpu.h"

namespace qeval::quant {

/// A quantizer while ranges are learned (docs/specification.md#grids): the scale is not clamped, the offset
/// is real. y = (clamp(round(x / scale) + offset, q_min, q_max) − offset) · scale.
template <typename Real>
struct LeafGrid {
  Real scale = 1, offset = 0;
  Real q_min = 0, q_max = 0;
  bool enabled = false;  ///< false: y = x
};

/// Gradient of the loss with respect to a LeafGrid.
template <typename Real>
struct GridGradient {
  Real scale = 0, offset = 0;
};

template <typename Real>
struct MinMax {
  Real lo = 0, hi = 0;
};

/// How a weight row becomes the transformed one: w'ⱼ = wⱼ · multiplierⱼ / divisorⱼ / row_divisor ·
/// row_multiplier; null factors are 1.
template <typename Real>
struct RowTransform {
  const Real* multiplier = nullptr;
  const Real* divisor = nullptr;
  Real row_divisor = 1, row_multiplier = 1;
};

/// The inner loops of the backward pass, all on rows of n elements, n ≥ 1; no alignment is required.
template <typename Real>
struct TrainKernels {
  /// y may be x. The grid is enabled.
  void (*fake_quantize)(const Real* x, int64_t n, const LeafGrid<Real>& grid, Real* y);
  /// gradient: dL/dy on entry, dL/dx on return; the result is the row's share of the grid's gradient.
  /// Straight through the rounding; nothing through the clamp at its ends or beyond them (q ≤ q_min or q ≥
  /// q_max), as the reference has it: dy/dscale = round(x/s) − x/s inside, q − offset there; dy/doffset = 0
  /// inside, −s there.
  GridGradient<Real> (*fake_quantize_backward)(const Real* x, int64_t n, const LeafGrid<Real>& grid,
                                               Real* gradient);
  void (*transform)(const Real* w, int64_t n, const RowTransform<Real>& transform, Real* out);
  MinMax<Real> (*min_max)(const Real* x, int64_t n);
  /// Σ dⱼ·wⱼ; column_sums[j] += dⱼ·wⱼ.
  Real (*product_sums)(const Real* d, const Real* w, int64_t n, Real* column_sums);
  /// x ← softmax(scale · x).
  void (*softmax)(Real* x, int64_t n, Real scale);
  /// gradient: dL/dp on entry, dL/dx on return, of p = softmax(scale · x).
  void (*softmax_backward)(const Real* p, int64_t n, Real scale, Real* gradient);
  /// y = 1 / (1 + exp(−x)).
  void (*sigmoid)(const Real* x, int64_t n, Real* y);
};

/// The kernels for this number type: float rounds and runs on the CPU path in force; double is what gradient
/// checks differentiate: portable, with rounding replaced by identity.
template <typename Real>
const TrainKernels<Real>& train_kernels();
/// The float kernels of a given path, which the CPU must support: for tests that compare paths.
const TrainKernels<float>& train_kernels(model::CpuPath path);

const TrainKernels<float>& train_kernels_portable();
const TrainKernels<float>& train_kernels_avx2();
const TrainKernels<float>& train_kernels_avx512();
const TrainKernels<float>& train_kernels_neon();
const TrainKernels<double>& train_kernels_smooth();

}  // namespace qeval::quant
