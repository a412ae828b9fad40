#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "model/kernels/bytes.h"

namespace qeval::model {

/// F16 to F32 for every input, branch-free so that a compiler vectorises it without hardware support for F16.
/// The exponent is rebased by 127 − 15 = 112. A subnormal is read as 2⁻¹⁴ + x, a normal number, and loses the
/// 2⁻¹⁴ again: exact, and out of reach of flush-to-zero modes.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFFU) << 13;
  const uint32_t subnormal = magnitude < (1U << 23) ? ~0U : 0U;
  const uint32_t infinite_or_nan = magnitude >= (31U << 23) ? ~0U : 0U;
  const uint32_t rebased = magnitude + (112U << 23) + (subnormal & (1U << 23));
  const float value = std::bit_cast<float>(rebased) - std::bit_cast<float>(subnormal & (113U << 23));
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (infinite_or_nan & 0x7F800000U) | sign);
}

inline uint16_t load_u16(const uint8_t* source) {
  uint16_t value = 0;
  std::memcpy(&value, source, sizeof value);
  return value;
}

inline uint32_t load_u32(const uint8_t* source) {
  uint32_t value = 0;
  std::memcpy(&value, source, sizeof value);
  return value;
}

inline float load_half(const uint8_t* source) {
  return half_to_float(load_u16(source));
}

// Decoders of one block whose codes stand for values of a table, or are -1, 0, 1 (block_formats_codes.cc).
void decode_iq4_nl(const uint8_t* block, float* out);
void decode_iq4_xs(const uint8_t* block, float* out);
void decode_mxfp4(const uint8_t* block, float* out);
void decode_nvfp4(const uint8_t* block, float* out);
void decode_tq1_0(const uint8_t* block, float* out);
void decode_tq2_0(const uint8_t* block, float* out);
void decode_q1_0(const uint8_t* block, float* out);
void decode_q2_0(const uint8_t* block, float* out);

// And of one whose codes stand for entries of a grid (block_formats_iq.cc).
void decode_iq2_xxs(const uint8_t* block, float* out);
void decode_iq2_xs(const uint8_t* block, float* out);
void decode_iq2_s(const uint8_t* block, float* out);
void decode_iq3_xxs(const uint8_t* block, float* out);
void decode_iq3_s(const uint8_t* block, float* out);
void decode_iq1_s(const uint8_t* block, float* out);
void decode_iq1_m(const uint8_t* block, float* out);

}  // namespace qeval::model
