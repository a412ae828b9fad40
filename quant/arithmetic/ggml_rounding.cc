#include "quant/arithmetic/ggml_rounding.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

namespace qeval::quant {
namespace {

using model::DType;

constexpr int64_t kBlock = 32, kSuperBlock = 256;

/// The nearest half, ties to even; beyond 65,504 infinite.
float round_f16(float x) {
  const float magnitude = std::abs(x);
  if (std::isnan(x)) return x;
  if (magnitude >= 65520) return std::copysign(INFINITY, x);
  if (magnitude < 0x1p-14F) return std::nearbyint(x * 0x1p24F) * 0x1p-24F;  // subnormal
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0xFFFU + (bits >> 13U & 1U)) & 0xFFFFE000U);
}

float round_bf16(float x) {
  if (std::isnan(x)) return x;
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7FFFU + (bits >> 16U & 1U)) & 0xFFFF0000U);
}

/// The element of the largest magnitude, the first of equals, with its sign; NaN where there is one.
float largest(const float* x, int64_t n) {
  float found = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(x[i])) return x[i];
    if (std::abs(x[i]) > std::abs(found)) found = x[i];
  }
  return found;
}

void round_q8(float* x, int64_t n) {
  const float magnitude = std::abs(largest(x, n));
  const float scale = round_f16(magnitude / 127), inverse = magnitude == 0 ? 0 : 127 / magnitude;
  for (int64_t i = 0; i < n; ++i) x[i] = std::nearbyint(x[i] * inverse) * scale;
}

/// Its largest element is always −127 steps, its scale a float.
void round_q8_k(float* x, int64_t n) {
  const float most = largest(x, n);
  const float inverse = most == 0 ? 0 : -127 / most;
  const float scale = most == 0 ? 0 : 1 / inverse;
  for (int64_t i = 0; i < n; ++i) x[i] = std::min(127.0F, std::nearbyint(x[i] * inverse)) * scale;
}

/// q4_0, q5_0: its largest element is always −half steps; half up, by cutting off.
void round_signed(float* x, int64_t n, float half) {
  const float step = largest(x, n) / -half;
  const float inverse = step == 0 ? 0 : 1 / step, scale = round_f16(step);
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::trunc(x[i] * inverse + half + 0.5F);
    x[i] = (std::min(code, 2 * half - 1) - half) * scale;
  }
}

/// q4_1, q5_1: steps from the least element on.
void round_from_least(float* x, int64_t n, float most) {
  const auto [low, high] = std::minmax_element(x, x + n);
  const float least = *low, step = (*high - least) / most;
  const float inverse = step == 0 ? 0 : 1 / step, scale = round_f16(step), offset = round_f16(least);
  for (int64_t i = 0; i < n; ++i)
    x[i] = std::min(std::trunc((x[i] - least) * inverse + 0.5F), most) * scale + offset;
}

void round_block(GgmlRow type, float* x, int64_t n) {
  switch (type) {
    case GgmlRow::q8_0:
    case GgmlRow::q8_1:
      return round_q8(x, n);
    case GgmlRow::q8_k:
      return round_q8_k(x, n);
    case GgmlRow::q4_0:
      return round_signed(x, n, 8);
    case GgmlRow::q5_0:
      return round_signed(x, n, 16);
    case GgmlRow::q4_1:
      return round_from_least(x, n, 15);
    case GgmlRow::q5_1:
      return round_from_least(x, n, 31);
    case GgmlRow::f32:
    case GgmlRow::f16:
    case GgmlRow::bf16:
      break;
  }
}

}  // namespace

std::optional<GgmlRow> dot_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return GgmlRow::f32;
    case DType::f16:
      return GgmlRow::f16;
    case DType::bf16:
      return GgmlRow::bf16;
    case DType::q8_0:
    case DType::q4_0:
    case DType::q5_0:
    case DType::q1_0:
    case DType::q2_0:
    case DType::iq4_nl:
    case DType::mxfp4:
    case DType::nvfp4:
      return GgmlRow::q8_0;
    case DType::q4_1:
    case DType::q5_1:
      return GgmlRow::q8_1;
    case DType::q2_k:
    case DType::q3_k:
    case DType::q4_k:
    case DType::q5_k:
    case DType::q6_k:
    case DType::iq1_s:
    case DType::iq1_m:
    case DType::iq2_xxs:
    case DType::iq2_xs:
    case DType::iq2_s:
    case DType::iq3_xxs:
    case DType::iq3_s:
    case DType::iq4_xs:
    case DType::tq1_0:
    case DType::tq2_0:
      return GgmlRow::q8_k;
    default:
      return std::nullopt;
  }
}

int bits(GgmlRow type) {
  switch (type) {
    case GgmlRow::f32:
      return 32;
    case GgmlRow::f16:
    case GgmlRow::bf16:
      return 16;
    case GgmlRow::q4_0:
    case GgmlRow::q4_1:
      return 4;
    case GgmlRow::q5_0:
    case GgmlRow::q5_1:
      return 5;
    default:
      return 8;
  }
}

std::optional<GgmlRow> find_kv_type(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, GgmlRow>, 8> kTypes{{{"f32", GgmlRow::f32},
                                                                        {"f16", GgmlRow::f16},
                                                                        {"bf16", GgmlRow::bf16},
                                                                        {"q8_0", GgmlRow::q8_0},
                                                                        {"q4_0", GgmlRow::q4_0},
                                                                        {"q4_1", GgmlRow::q4_1},
                                                                        {"q5_0", GgmlRow::q5_0},
                                                                        {"q5_1", GgmlRow::q5_1}}};
  const auto* const found = std::ranges::find(kTypes, name, &std::pair<std::string_view, GgmlRow>::first);
  return found == kTypes.end() ? std::nullopt : std::optional(found->second);
}

int64_t block_size(GgmlRow type) {
  if (type == GgmlRow::q8_k) return kSuperBlock;
  return type == GgmlRow::f32 || type == GgmlRow::f16 || type == GgmlRow::bf16 ? 1 : kBlock;
}

void round_row(GgmlRow type, float* x, int64_t n) {
  if (type == GgmlRow::f32) return;
  if (type == GgmlRow::f16) {
    for (int64_t i = 0; i < n; ++i) x[i] = round_f16(x[i]);
    return;
  }
  if (type == GgmlRow::bf16) {
    for (int64_t i = 0; i < n; ++i) x[i] = round_bf16(x[i]);
    return;
  }
  for (int64_t i = 0; i < n; i += block_size(type)) round_block(type, x + i, block_size(type));
}

}  // namespace qeval::quant
