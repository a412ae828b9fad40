// Vectors of eight floats, in two registers of NEON: 32 of them hold what AVX2 has 16 of, so that tiles and
// the order of sums are AVX2's, and so are the results. simd.h says what each operation does.
#pragma once

#include <cstdint>

#include <arm_neon.h>

namespace qeval::model {
namespace {

struct Vec {
  static constexpr int64_t width = 8;
  float32x4_t low, high;
};
inline Vec load(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4)};
}
inline void store(float* p, Vec x) {
  vst1q_f32(p, x.low);
  vst1q_f32(p + 4, x.high);
}
inline Vec broadcast(float x) {
  return {vdupq_n_f32(x), vdupq_n_f32(x)};
}
inline Vec operator+(Vec a, Vec b) {
  return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
}
inline Vec operator-(Vec a, Vec b) {
  return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
}
inline Vec operator*(Vec a, Vec b) {
  return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
}
inline Vec operator/(Vec a, Vec b) {
  return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)};
}
// The instructions of these names hand on a NaN of either operand.
inline Vec max(Vec a, Vec b) {
  return {vbslq_f32(vcgtq_f32(a.low, b.low), a.low, b.low),
          vbslq_f32(vcgtq_f32(a.high, b.high), a.high, b.high)};
}
inline Vec min(Vec a, Vec b) {
  return {vbslq_f32(vcltq_f32(a.low, b.low), a.low, b.low),
          vbslq_f32(vcltq_f32(a.high, b.high), a.high, b.high)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
inline Vec round_even(Vec a) {
  return {vrndnq_f32(a.low), vrndnq_f32(a.high)};
}
inline float32x4_t where_equal(float32x4_t a, float32x4_t b, float32x4_t x) {
  return vreinterpretq_f32_u32(vandq_u32(vceqq_f32(a, b), vreinterpretq_u32_f32(x)));
}
inline Vec where_equal(Vec a, Vec b, Vec x) {
  return {where_equal(a.low, b.low, x.low), where_equal(a.high, b.high, x.high)};
}
inline float32x4_t power_of_two(float32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
inline Vec power_of_two(Vec n) {
  return {power_of_two(n.low), power_of_two(n.high)};
}

struct Codes {
  int32x4_t low, high;
};
inline Codes widen(int16x8_t x) {
  return {vmovl_s16(vget_low_s16(x)), vmovl_high_s16(x)};
}
inline Codes widen_codes(const uint8_t* p) {
  return widen(vreinterpretq_s16_u16(vmovl_u8(vld1_u8(p))));
}
inline Codes all_codes(int32_t x) {
  return {vdupq_n_s32(x), vdupq_n_s32(x)};
}
inline Codes load_codes(const int32_t* p) {
  return {vld1q_s32(p), vld1q_s32(p + 4)};
}
inline Vec difference(Codes a, Codes b) {
  return {vcvtq_f32_s32(vsubq_s32(a.low, b.low)), vcvtq_f32_s32(vsubq_s32(a.high, b.high))};
}
struct Table16 {
  uint8x16x4_t values;
  explicit Table16(const float* table) : values(vld1q_u8_x4(reinterpret_cast<const uint8_t*>(table))) {}
  Vec operator()(const uint8_t* p) const {
    const Codes codes = widen_codes(p);
    return {look_up(codes.low), look_up(codes.high)};
  }
  float32x4_t look_up(int32x4_t codes) const {
    // The four bytes of each value.
    const int32x4_t bytes = vmlaq_n_s32(vdupq_n_s32(0x03020100), codes, 0x04040404);
    return vreinterpretq_f32_u8(vqtbl4q_u8(values, vreinterpretq_u8_s32(bytes)));
  }
};
struct Table256 {
  const float* table;
  explicit Table256(const float* values) : table(values) {}
  Vec operator()(const uint8_t* p) const {
    const float eight[] = {table[p[0]], table[p[1]], table[p[2]], table[p[3]],
                           table[p[4]], table[p[5]], table[p[6]], table[p[7]]};
    return load(eight);
  }
};

inline float square_root(float x) {
  return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0);
}

constexpr int64_t kSquare = 8;
/// The columns of four rows of four.
inline void turn(float32x4_t* r) {
  const float32x4_t a = vzip1q_f32(r[0], r[2]), b = vzip2q_f32(r[0], r[2]);
  const float32x4_t c = vzip1q_f32(r[1], r[3]), d = vzip2q_f32(r[1], r[3]);
  r[0] = vzip1q_f32(a, c);
  r[1] = vzip2q_f32(a, c);
  r[2] = vzip1q_f32(b, d);
  r[3] = vzip2q_f32(b, d);
}
/// The columns of eight rows of eight.
inline void turn(Vec* r) {
  float32x4_t quarters[4][4];
  for (int i = 0; i < 4; ++i) {
    quarters[0][i] = r[i].low;
    quarters[1][i] = r[i].high;
    quarters[2][i] = r[i + 4].low;
    quarters[3][i] = r[i + 4].high;
  }
  for (auto& quarter : quarters) turn(quarter);
  for (int i = 0; i < 4; ++i) {
    r[i] = {quarters[0][i], quarters[2][i]};
    r[i + 4] = {quarters[1][i], quarters[3][i]};
  }
}
inline void transpose(const float* in, int64_t ld, float* out, int64_t ld_out) {
  Vec r[8];
  for (int i = 0; i < 8; ++i) r[i] = load(in + i * ld);
  turn(r);
  for (int i = 0; i < 8; ++i) store(out + i * ld_out, r[i]);
}

inline Vec widen_f16(uint16x8_t halves) {
  const float16x8_t x = vreinterpretq_f16_u16(halves);
  return {vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)};
}
inline Vec widen_bf16(uint16x8_t x) {
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(x), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(x, 16))};
}
inline void widen_eight_f16(const uint16_t* x, float* y) {
  store(y, widen_f16(vld1q_u16(x)));
}

inline int16x8_t narrow_to_i16(const float* codes) {
  const Vec x = load(codes);
  return vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(x.low)), vcvtnq_s32_f32(x.high));
}
inline void store_eight(const float* codes, int8_t* out) {
  vst1_s8(out, vqmovn_s16(narrow_to_i16(codes)));
}
inline void store_eight(const float* codes, int16_t* out) {
  vst1q_s16(out, narrow_to_i16(codes));
}
inline void scale_eight(const int16x8_t codes, int32_t zero_point, float scale, float* y) {
  store(y, difference(widen(codes), all_codes(zero_point)) * broadcast(scale));
}
inline void scale_eight(const int8_t* codes, int32_t zero_point, float scale, float* y) {
  scale_eight(vmovl_s8(vld1_s8(codes)), zero_point, scale, y);
}
inline void scale_eight(const int16_t* codes, int32_t zero_point, float scale, float* y) {
  scale_eight(vld1q_s16(codes), zero_point, scale, y);
}

}  // namespace
}  // namespace qeval::model
