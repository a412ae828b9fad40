#include "model/checkpoint/tensor.h"

#include <array>
#include <bit>
#include <cmath>

#include <fmt/ranges.h>

#include "model/checkpoint/layout.h"

namespace qeval::model {

const DTypeInfo& info(DType dtype) {
  // clang-format off
  static constexpr auto kTypes = std::to_array<DTypeInfo>({
      {"F32", 1, 4, true},
      {"F64", 1, 8, true},
      {"F16", 1, 2, true},
      {"BF16", 1, 2, true},
      {"I64", 1, 8, false},
      {"I32", 1, 4, false},
      {"I8", 1, 1, false},
      {"U8", 1, 1, false},
      {"F8_E4M3", 1, 1, false},
      {"F8_E8M0", 1, 1, false},
      {"Q8_0", 32, 34, true},
      {"Q4_0", 32, 18, true},
      {"Q4_1", 32, 20, true},
      {"Q5_0", 32, 22, true},
      {"Q5_1", 32, 24, true},
      {"Q2_K", 256, 84, true},
      {"Q3_K", 256, 110, true},
      {"Q4_K", 256, 144, true},
      {"Q5_K", 256, 176, true},
      {"Q6_K", 256, 210, true},
      {"Q1_0", 128, 18, true},
      {"Q2_0", 64, 18, true},
      {"IQ1_S", 256, 50, true},
      {"IQ1_M", 256, 56, true},
      {"IQ2_XXS", 256, 66, true},
      {"IQ2_XS", 256, 74, true},
      {"IQ2_S", 256, 82, true},
      {"IQ3_XXS", 256, 98, true},
      {"IQ3_S", 256, 110, true},
      {"IQ4_NL", 32, 18, true},
      {"IQ4_XS", 256, 136, true},
      {"TQ1_0", 256, 54, true},
      {"TQ2_0", 256, 66, true},
      {"MXFP4", 32, 17, true},
      {"NVFP4", 64, 36, true},
  });
  // clang-format on
  return kTypes.at(static_cast<size_t>(dtype));
}

int64_t TensorView::element_count() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

std::optional<int64_t> byte_count(DType dtype, std::span<const int64_t> shape) {
  constexpr int64_t kLimit = int64_t{1} << 62;
  const DTypeInfo& type = info(dtype);
  const int64_t last = shape.empty() ? 1 : shape.back();
  if (last % type.block_size != 0) return std::nullopt;
  int64_t blocks = 1;
  bool empty = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0) return std::nullopt;
    const int64_t extent = i + 1 == shape.size() ? last / type.block_size : shape[i];
    // An empty dimension does not excuse an absurd one beside it.
    empty = empty || extent == 0;
    if (extent > 0 && blocks > kLimit / type.block_bytes / type.block_size / extent) return std::nullopt;
    if (extent > 0) blocks *= extent;
  }
  return empty ? 0 : blocks * type.block_bytes;
}

uint16_t narrow_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7E00U);
  const float magnitude = std::abs(value);
  if (magnitude >= 65520.0F) return static_cast<uint16_t>(sign | 0x7C00U);  // half of the last step above
  if (magnitude < 6.103515625e-5F) {
    // Subnormal: multiples of 2^-24; rounding up to 1024 of them gives the first normal number.
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(magnitude * 16777216.0F)));
  }
  const uint32_t body = std::bit_cast<uint32_t>(magnitude) - (112U << 23);
  return static_cast<uint16_t>(sign | ((body + 0xFFFU + ((body >> 13) & 1U)) >> 13));
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace qeval::model
