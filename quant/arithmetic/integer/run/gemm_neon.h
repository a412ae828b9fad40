#pragma once

// What integer matrix products are made of on AArch64: multiply-adds that widen, or the dot products of the
// CPUs that have them (asimddp, i8mm). Compiled once per CPU path; no floating point. The macros are
// gemm_x86.h's.

#include <cstdint>
#include <cstring>

#include <arm_neon.h>

#include "quant/arithmetic/integer/run/kernels.h"

#define QEVAL_BYTE_PRODUCTS

namespace qeval::quant {
namespace {

inline int32_t load_int32(const void* from) {
  int32_t x = 0;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

// Four registers of sums a row; beside them, of 32, up to eight of B and one of A.
#ifdef __ARM_FEATURE_DOTPROD
constexpr int64_t kTileRows = 6;
#else
constexpr int64_t kTileRows = 5;
#endif
constexpr int64_t kQuadPanels = 1;

/// kPanel sums.
struct Sums {
  int32x4_t a, b, c, d;
};
inline Sums load_sums(const int32_t* from) {
  return {vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12)};
}
inline void store_sums(int32_t* to, const Sums& sums) {
  vst1q_s32(to, sums.a);
  vst1q_s32(to + 4, sums.b);
  vst1q_s32(to + 8, sums.c);
  vst1q_s32(to + 12, sums.d);
}

/// A code of each column, as 16-bit numbers.
struct Column {
  int16x8_t low, high;
};
inline Column widen(int8x16_t codes) {
  return {vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes)};
}
template <int LANE>
inline void add_column(Sums& sums, int16x4_t x, const Column& codes) {
  sums.a = vmlal_lane_s16(sums.a, vget_low_s16(codes.low), x, LANE);
  sums.b = vmlal_high_lane_s16(sums.b, codes.low, x, LANE);
  sums.c = vmlal_lane_s16(sums.c, vget_low_s16(codes.high), x, LANE);
  sums.d = vmlal_high_lane_s16(sums.d, codes.high, x, LANE);
}

/// Two codes of each column, and what multiplies them: two 16-bit codes in one number.
struct Pairs {
  Column first, second;
};
inline Pairs load_pairs(const int8_t* b) {
  const int8x16x2_t codes = vld2q_s8(b);
  return {widen(codes.val[0]), widen(codes.val[1])};
}
inline void add_pairs(Sums& sums, int32_t pair, const Pairs& codes) {
  const int16x4_t x = vreinterpret_s16_s32(vdup_n_s32(pair));
  add_column<0>(sums, x, codes.first);
  add_column<1>(sums, x, codes.second);
}

#ifdef __ARM_FEATURE_DOTPROD

/// Four codes of each column.
struct Quads {
  int8x16_t a, b, c, d;
};
inline Quads load_quads(const int8_t* b) {
  return {vld1q_s8(b), vld1q_s8(b + 16), vld1q_s8(b + 32), vld1q_s8(b + 48)};
}
/// Of a panel's pairs [2, kPanel, 2].
inline Quads load_pairs_as_quads(const int8_t* b) {
  const auto zip1 = [](int8x16_t x, int8x16_t y) {
    return vreinterpretq_s8_s16(vzip1q_s16(vreinterpretq_s16_s8(x), vreinterpretq_s16_s8(y)));
  };
  const auto zip2 = [](int8x16_t x, int8x16_t y) {
    return vreinterpretq_s8_s16(vzip2q_s16(vreinterpretq_s16_s8(x), vreinterpretq_s16_s8(y)));
  };
  const Quads pairs = load_quads(b);
  return {zip1(pairs.a, pairs.c), zip2(pairs.a, pairs.c), zip1(pairs.b, pairs.d), zip2(pairs.b, pairs.d)};
}

#ifdef __ARM_FEATURE_MATMUL_INT8

using Broadcast = uint8x16_t;
inline Broadcast broadcast_int32(const void* from) {
  return vreinterpretq_u8_s32(vdupq_n_s32(load_int32(from)));
}
inline void add_quads(Sums& sums, Broadcast quad, const Quads& codes) {
  sums.a = vusdotq_s32(sums.a, quad, codes.a);
  sums.b = vusdotq_s32(sums.b, quad, codes.b);
  sums.c = vusdotq_s32(sums.c, quad, codes.c);
  sums.d = vusdotq_s32(sums.d, quad, codes.d);
}

#else

// Both operands of a dot product are signed: codes of 0 … 255 are lowered by 128, and 128 times the sum of
// the column's codes is added afterwards.
#define QEVAL_SIGNED_PRODUCTS

using Broadcast = int8x16_t;
inline Broadcast broadcast_int32(const void* from) {
  const uint32_t lowered = static_cast<uint32_t>(load_int32(from)) ^ 0x80808080U;
  return vreinterpretq_s8_u32(vdupq_n_u32(lowered));
}
inline void add_quads(Sums& sums, Broadcast quad, const Quads& codes) {
  sums.a = vdotq_s32(sums.a, quad, codes.a);
  sums.b = vdotq_s32(sums.b, quad, codes.b);
  sums.c = vdotq_s32(sums.c, quad, codes.c);
  sums.d = vdotq_s32(sums.d, quad, codes.d);
}
/// What is missing from the sums of `codes`: added to what other codes lack.
inline void add_offsets(Sums& sums, const Quads& codes) {
  const Broadcast half = vdupq_n_s8(64);
  add_quads(sums, half, codes);
  add_quads(sums, half, codes);
}

#endif
#else

struct Quads {
  Pairs first, second;
};
inline Quads load_quads(const int8_t* b) {
  const int8x16x4_t codes = vld4q_s8(b);
  return {{widen(codes.val[0]), widen(codes.val[1])}, {widen(codes.val[2]), widen(codes.val[3])}};
}
inline Quads load_pairs_as_quads(const int8_t* b) {
  return {load_pairs(b), load_pairs(b + 2 * kPanel)};
}
using Broadcast = int16x4_t;
inline Broadcast broadcast_int32(const void* from) {
  const uint8x8_t bytes = vreinterpret_u8_s32(vdup_n_s32(load_int32(from)));
  return vreinterpret_s16_u16(vget_low_u16(vmovl_u8(bytes)));
}
inline void add_quads(Sums& sums, Broadcast quad, const Quads& codes) {
  add_column<0>(sums, quad, codes.first.first);
  add_column<1>(sums, quad, codes.first.second);
  add_column<2>(sums, quad, codes.second.first);
  add_column<3>(sums, quad, codes.second.second);
}

#endif

/// Codes of 0 … 255 as bytes.
inline void narrow_32(const int16_t* codes, uint8_t* bytes) {
  for (int i = 0; i < 32; i += 16) {
    vst1q_u8(bytes + i, vqmovun_high_s16(vqmovun_s16(vld1q_s16(codes + i)), vld1q_s16(codes + i + 8)));
  }
}

}  // namespace
}  // namespace qeval::quant
