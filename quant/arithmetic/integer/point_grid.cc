#include "quant/arithmetic/integer/point_grid.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace qeval::quant {

int64_t PointGrid::reach() const {
  return std::max<int64_t>(std::abs(static_cast<int64_t>(codes.lo) - codes.zero_point),
                           std::abs(static_cast<int64_t>(codes.hi) - codes.zero_point));
}

float PointGrid::value(int32_t code) const {
  return static_cast<float>(code - codes.zero_point) * grid.scale;
}

int16_t PointGrid::code(float value) const {
  const float q = std::nearbyint(value / grid.scale) + static_cast<float>(grid.zero_point);
  const float clamped = std::clamp(q, static_cast<float>(grid.q_min), static_cast<float>(grid.q_max));
  return static_cast<int16_t>(static_cast<int32_t>(clamped) - offset);
}

PointGrid make_point_grid(const QuantSpec& spec, Range range) {
  PointGrid point;
  point.grid = make_grid(spec, range);
  if (spec.bits <= 8) {
    point.offset = point.grid.q_min;
  } else {
    point.offset = spec.symmetric ? 0 : 1 << (spec.bits - 1);
  }
  point.codes = {.zero_point = point.grid.zero_point - point.offset,
                 .lo = point.grid.q_min - point.offset,
                 .hi = point.grid.q_max - point.offset};
  return point;
}

Rescale make_rescale(double factor, double bound) {
  assert(factor > 0 && std::isfinite(factor) && bound >= 0);
  Rescale result;
  while (std::ldexp(bound, -result.pre_shift) >= 2147483647.0 && result.pre_shift < 62) ++result.pre_shift;
  int exponent = 0;
  const double fraction = std::frexp(std::ldexp(factor, result.pre_shift), &exponent);
  int64_t multiplier = std::llround(std::ldexp(fraction, 31));
  int32_t shift = 31 - exponent;
  if (shift > 62) {
    multiplier = shift - 62 < 32 ? multiplier >> (shift - 62) : 0;
    shift = 62;
  } else if (shift < 1) {
    // Any accumulator but 0 is beyond every code.
    multiplier = std::numeric_limits<int32_t>::max();
    shift = 1;
  }
  if (multiplier > std::numeric_limits<int32_t>::max()) {
    multiplier = shift > 1 ? multiplier / 2 : std::numeric_limits<int32_t>::max();
    shift = std::max(1, shift - 1);
  }
  result.multiplier = static_cast<int32_t>(multiplier);
  result.shift = shift;
  while (result.room < 31 && std::ldexp(bound, result.room + 1) < 2147483647.0) ++result.room;
  return result;
}

FastRescale make_fast(const std::vector<Rescale>& factors) {
  FastRescale fast;
  for (const Rescale& factor : factors) fast.lift = std::max(fast.lift, factor.lift());
  for (const Rescale& factor : factors) {
    const int32_t shift = factor.shift + fast.lift;
    if (factor.pre_shift != 0 || factor.room < fast.lift || shift > 63) return {};
    fast.multiplier.push_back(factor.multiplier);
    fast.shift.push_back(shift - 32);
  }
  return fast;
}

CodeTable regrid(const PointGrid& from, const PointGrid& to) {
  if (from == to) return {};
  return make_table(from, to, [](float x) { return x; });
}

}  // namespace qeval::quant
