#include "quant/arithmetic/activation_rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace qeval::quant {
namespace {

using model::ActivationRounding;

constexpr float kE4m3Max = 448, kE2m1Max = 6;

struct Extremes {
  float lo = 0, hi = 0;  ///< 0 among them
  float magnitude() const { return std::max(-lo, hi); }
};

/// NaN is passed over: it stays in the row whatever the scale is.
Extremes extremes(const float* x, int64_t n) {
  Extremes result;
  for (int64_t i = 0; i < n; ++i) {
    result.lo = x[i] < result.lo ? x[i] : result.lo;
    result.hi = x[i] > result.hi ? x[i] : result.hi;
  }
  return result;
}

/// Of integers: x ≈ (code − zero) · scale.
struct IntegerGrid {
  float lo, hi, scale, zero;

  IntegerGrid(int bits, float grid_scale, float grid_zero)
      : lo(std::ldexp(-1.0F, bits - 1)), hi(-lo - 1), scale(grid_scale), zero(grid_zero) {}
  /// Of the row's or group's own range, whose magnitude is not 0.
  IntegerGrid(const ActivationRounding& r, const Extremes& range, float magnitude)
      : IntegerGrid(r.bits, magnitude / ((std::ldexp(1.0F, r.bits) - 1) / 2), 0) {
    if (r.symmetric) return;
    scale = (range.hi - range.lo) / (hi - lo);
    zero = std::nearbyint(std::clamp(lo - range.lo / scale, lo, hi));
  }
  /// In this order a NaN is handed on.
  float code(float x) const { return std::min(std::max(std::nearbyint(x / scale + zero), lo), hi); }
};

void round_integers(float* x, int64_t n, const IntegerGrid& grid) {
  for (int64_t i = 0; i < n; ++i) x[i] = (grid.code(x[i]) - grid.zero) * grid.scale;
}

float bounded(const ActivationRounding& r, float magnitude) {
  return r.upper_bound != 0 ? std::min(magnitude, r.upper_bound) : magnitude;
}

void round_codes(const ActivationRounding& r, float* x, int64_t n, float scale, float zero) {
  switch (r.type) {
    case ActivationRounding::Type::integer:
      round_integers(x, n, {r.bits, scale, zero});
      break;
    case ActivationRounding::Type::e4m3:
      for (int64_t i = 0; i < n; ++i) x[i] = round_e4m3(x[i] / scale) * scale;
      break;
    case ActivationRounding::Type::e2m1:
      for (int64_t i = 0; i < n; ++i) x[i] = round_e2m1(x[i] / scale) * scale;
      break;
  }
}

/// 2^e for MX: the largest magnitude's exponent, a mantissa from 1.75 on counting as the next one's, less the
/// exponent of the type's largest number.
float power_of_two(const ActivationRounding& r, float magnitude) {
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude) + (1U << 21U);
  const int exponent = static_cast<int>(bits >> 23U & 255U) - 127;
  const int offset = r.type == ActivationRounding::Type::e4m3 ? 8 : 2;
  return std::ldexp(1.0F, std::max(exponent - offset, -127));
}

/// The codes of a row or a group, on a grid of its own.
void round_stretch(const ActivationRounding& r, float* x, int64_t n) {
  const Extremes range = extremes(x, n);
  const float magnitude = bounded(r, range.magnitude());
  if (magnitude == 0) return;
  if (r.source == ActivationRounding::Scale::power_of_two) {
    round_codes(r, x, n, power_of_two(r, magnitude), 0);
  } else if (r.source == ActivationRounding::Scale::two_level) {
    const float largest = magnitude / kE2m1Max;
    const float code = round_e4m3(r.global_divides ? largest * r.global : largest / r.global);
    if (code == 0) {  // too small for the second scale: nothing rounds away from 0
      for (int64_t i = 0; i < n; ++i) x[i] *= 0;
      return;
    }
    round_codes(r, x, n, r.global_divides ? code / r.global : code * r.global, 0);
  } else if (r.type == ActivationRounding::Type::integer) {
    round_integers(x, n, {r, range, magnitude});
  } else {
    round_codes(r, x, n, magnitude / kE4m3Max, 0);
  }
}

}  // namespace

float round_e4m3(float x) {
  const float magnitude = std::abs(x);
  if (magnitude >= kE4m3Max) return std::copysign(kE4m3Max, x);
  if (magnitude < 0x1p-6F) return std::nearbyint(x * 512) / 512;  // subnormal: multiples of 2⁻⁹
  if (std::isnan(x)) return x;
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = bits + 0x7FFFFU + (bits >> 20U & 1U);
  return std::bit_cast<float>(rounded & 0xFFF00000U);
}

float round_e2m1(float x) {
  const float magnitude = std::abs(x);
  if (std::isnan(x)) return x;
  // Steps of a half up to 2, of 1 up to 4, of 2 above.
  float rounded = kE2m1Max;
  if (magnitude <= 2) {
    rounded = std::nearbyint(magnitude * 2) / 2;
  } else if (magnitude <= 4) {
    rounded = std::nearbyint(magnitude);
  } else if (magnitude < kE2m1Max) {
    rounded = std::nearbyint(magnitude / 2) * 2;
  }
  return std::copysign(rounded, x);
}

bool has_row_codes(const ActivationRounding& rounding) {
  return rounding.type == ActivationRounding::Type::integer && rounding.bits <= 8 &&
         (rounding.source == ActivationRounding::Scale::token ||
          (rounding.source == ActivationRounding::Scale::fixed && rounding.zero_point >= INT8_MIN &&
           rounding.zero_point <= INT8_MAX));
}

RowGrid code_activation(const ActivationRounding& rounding, const float* x, int64_t n, int16_t* codes) {
  IntegerGrid grid(rounding.bits, rounding.scale, static_cast<float>(rounding.zero_point));
  if (rounding.source == ActivationRounding::Scale::token) {
    const Extremes range = extremes(x, n);
    const float magnitude = bounded(rounding, range.magnitude());
    grid = magnitude == 0 ? IntegerGrid(rounding.bits, 1, 0) : IntegerGrid(rounding, range, magnitude);
  }
  // No code is infinite, so that only a NaN makes the sum one.
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float code = grid.code(x[i]);
    sum += code;
    codes[i] = std::isnan(code) ? int16_t{0} : static_cast<int16_t>(code);
  }
  if (std::isnan(sum)) return {.scale = sum};
  return {.scale = grid.scale, .zero_point = static_cast<int32_t>(grid.zero)};
}

void round_activation(const ActivationRounding& rounding, float* x, int64_t n) {
  switch (rounding.source) {
    case ActivationRounding::Scale::fixed:
      round_codes(rounding, x, n, rounding.scale, static_cast<float>(rounding.zero_point));
      break;
    case ActivationRounding::Scale::token:
      round_stretch(rounding, x, n);
      break;
    default:
      for (int64_t i = 0; i < n; i += rounding.group)
        round_stretch(rounding, x + i, std::min(rounding.group, n - i));
  }
}

}  // namespace qeval::quant
