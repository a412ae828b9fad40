#pragma once

#include <cstdint>

#include "quant/grid/kernels/quant_kernels.h"

namespace qeval::quant {

/// How one tensor is quantized; the fields of an entry of default_qcfg.json.
struct QuantSpec {
  int bits = 32;             ///< 2 … 16; above 16 the tensor is left alone
  bool symmetric = false;    ///< zero point 0, q from −2^(bits−1)
  bool per_channel = false;  ///< weights: a grid per output feature (row)
  int64_t group_size = -1;   ///< weights: a grid per row and this many inputs; −1: none
  bool dynamic = false;      ///< activations: the range is that of the row at hand

  bool enabled() const { return bits <= 16; }
  bool operator==(const QuantSpec&) const = default;
};

/// docs/specification.md#grids, the table: the codes of b bits. q_max of the asymmetric grid is 2^b − 1.
struct CodeLimits {
  int32_t q_min, q_max;
};
CodeLimits code_limits(int bits, bool symmetric);

inline constexpr float kMinScale = 1e-5F;
inline constexpr float kMaxScale = 1e6F;

/// The grid of `range` (lo ≤ hi), in float32 and in the reference's operation order:
/// symmetric s = max(|lo|, |hi|) / q_max, z = 0; asymmetric s = (hi − lo) / q_max, z = −round(lo / s); s
/// clamped to [1e-5, 1e6] before z is taken, round half to even. The range need not contain 0: z may lie
/// outside the codes. A NaN range gives a NaN scale. Precondition: spec.enabled().
Grid make_grid(const QuantSpec& spec, Range range);

/// The smallest and largest value that a grid represents: [(q_min − z)·s, (q_max − z)·s].
Range representable(const Grid& grid);

/// x [n] ← fake-quantized x, the row's own range taken where the spec is dynamic, else `grid`.
void fake_quantize_row(const QuantSpec& spec, const Grid& grid, float* x, int64_t n);

}  // namespace qeval::quant
