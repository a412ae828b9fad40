#include "quant/grid/quantizer.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace qeval::quant {

CodeLimits code_limits(int bits, bool symmetric) {
  assert(bits >= 2 && bits <= 16);
  if (symmetric) return {-(1 << (bits - 1)), (1 << (bits - 1)) - 1};
  return {0, (1 << bits) - 1};
}

Grid make_grid(const QuantSpec& spec, Range range) {
  const CodeLimits limits = code_limits(spec.bits, spec.symmetric);
  Grid grid{.scale = 0, .zero_point = 0, .q_min = limits.q_min, .q_max = limits.q_max};
  const auto steps = static_cast<float>(limits.q_max);
  const float width = spec.symmetric ? std::max(std::abs(range.lo), std::abs(range.hi)) : range.hi - range.lo;
  const float scale = width / steps;
  // std::clamp hands NaN through.
  grid.scale = std::clamp(scale, kMinScale, kMaxScale);
  if (!spec.symmetric && std::isfinite(range.lo)) {
    // std::nearbyint rounds half to even in the default rounding mode. The bound leaves room for q − z.
    const float z = -std::nearbyint(range.lo / grid.scale);
    grid.zero_point = static_cast<int32_t>(std::clamp(z, -1073741824.0F, 1073741824.0F));
  }
  return grid;
}

Range representable(const Grid& grid) {
  const auto z = static_cast<float>(grid.zero_point);
  return {(static_cast<float>(grid.q_min) - z) * grid.scale,
          (static_cast<float>(grid.q_max) - z) * grid.scale};
}

void fake_quantize_row(const QuantSpec& spec, const Grid& grid, float* x, int64_t n) {
  if (!spec.enabled()) return;
  const QuantKernels& kernel = quant_kernels();
  kernel.fake_quantize(x, n, spec.dynamic ? make_grid(spec, kernel.range(x, n)) : grid, x);
}

}  // namespace qeval::quant
