#pragma once

// The operations of vectors_x86.h's 256-bit vectors on pairs of NEON's registers. Compiled once per CPU path;
// no floating point.

#include <cstdint>

#include <arm_neon.h>

namespace qeval::quant {
namespace {

struct Eight {  ///< lanes of 32 bits
  int32x4_t low, high;
};
using EightCodes = int16x8_t;
using ShiftCount = int32_t;

inline ShiftCount shift_count(int32_t count) {
  return count;
}

// A register by its lanes.
inline int64x2_t in64(int32x4_t x) {
  return vreinterpretq_s64_s32(x);
}
inline int16x8_t in16(int32x4_t x) {
  return vreinterpretq_s16_s32(x);
}
inline uint64x2_t unsigned64(int32x4_t x) {
  return vreinterpretq_u64_s32(x);
}
inline uint32x4_t unsigned32(int32x4_t x) {
  return vreinterpretq_u32_s32(x);
}
inline uint16x8_t unsigned16(int32x4_t x) {
  return vreinterpretq_u16_s32(x);
}
inline int32x4_t in32(int64x2_t x) {
  return vreinterpretq_s32_s64(x);
}
inline int32x4_t in32(int16x8_t x) {
  return vreinterpretq_s32_s16(x);
}
inline int32x4_t in32(uint64x2_t x) {
  return vreinterpretq_s32_u64(x);
}
inline int32x4_t in32(uint32x4_t x) {
  return vreinterpretq_s32_u32(x);
}
inline int32x4_t in32(uint16x8_t x) {
  return vreinterpretq_s32_u16(x);
}
template <typename Operation>
inline Eight each(Eight x, const Operation& operation) {
  return {operation(x.low), operation(x.high)};
}
template <typename Operation>
inline Eight each(Eight a, Eight b, const Operation& operation) {
  return {operation(a.low, b.low), operation(a.high, b.high)};
}

struct Bits256 {
  using Vector = Eight;
  static Eight load(const void* from) {
    const auto* lanes = static_cast<const int32_t*>(from);
    return {vld1q_s32(lanes), vld1q_s32(lanes + 4)};
  }
  static Eight widen(const int16_t* from) {
    const int16x8_t x = vld1q_s16(from);
    return {vmovl_s16(vget_low_s16(x)), vmovl_high_s16(x)};
  }
  static Eight all(int32x4_t x) { return {x, x}; }
  static Eight all16(int16_t x) { return all(in32(vdupq_n_s16(x))); }
  static Eight all32(int32_t x) { return all(vdupq_n_s32(x)); }
  static Eight all64(int64_t x) { return all(in32(vdupq_n_s64(x))); }
  static Eight table(const uint32_t* eight) { return load(eight); }
};
using Widest = Bits256;

inline void store(void* to, Eight x) {
  vst1q_s32(static_cast<int32_t*>(to), x.low);
  vst1q_s32(static_cast<int32_t*>(to) + 4, x.high);
}
inline Eight add32(Eight a, Eight b) {
  return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)};
}
inline Eight sub32(Eight a, Eight b) {
  return {vsubq_s32(a.low, b.low), vsubq_s32(a.high, b.high)};
}
inline Eight min32(Eight a, Eight b) {
  return {vminq_s32(a.low, b.low), vminq_s32(a.high, b.high)};
}
inline Eight product32(Eight a, Eight b) {
  return {vmulq_s32(a.low, b.low), vmulq_s32(a.high, b.high)};
}
inline Eight add64(Eight a, Eight b) {
  return each(a, b, [](int32x4_t x, int32x4_t y) { return in32(vaddq_s64(in64(x), in64(y))); });
}
inline Eight sub64(Eight a, Eight b) {
  return each(a, b, [](int32x4_t x, int32x4_t y) { return in32(vsubq_s64(in64(x), in64(y))); });
}
inline Eight sub16(Eight a, Eight b) {
  return each(a, b, [](int32x4_t x, int32x4_t y) { return in32(vsubq_s16(in16(x), in16(y))); });
}
inline Eight max16(Eight a, Eight b) {
  return each(a, b, [](int32x4_t x, int32x4_t y) { return in32(vmaxq_s16(in16(x), in16(y))); });
}
inline EightCodes clamp_codes(EightCodes x, EightCodes lo, EightCodes hi) {
  return vminq_s16(vmaxq_s16(x, lo), hi);
}
inline Eight clamp16(Eight x, Eight lo, Eight hi) {
  return {in32(clamp_codes(in16(x.low), in16(lo.low), in16(hi.low))),
          in32(clamp_codes(in16(x.high), in16(lo.high), in16(hi.high)))};
}
inline Eight clamp64(Eight x, Eight lo, Eight hi) {
  const auto larger = [](int32x4_t a, int32x4_t b) { return vcgtq_s64(in64(a), in64(b)); };
  const Eight raised =
      each(x, lo, [&](int32x4_t a, int32x4_t b) { return in32(vbslq_s64(larger(b, a), in64(b), in64(a))); });
  return each(raised, hi,
              [&](int32x4_t a, int32x4_t b) { return in32(vbslq_s64(larger(a, b), in64(b), in64(a))); });
}
inline Eight high_product16(Eight a, Eight b) {
  return each(a, b, [](int32x4_t x, int32x4_t y) {
    const uint32x4_t low = vmull_u16(vget_low_u16(unsigned16(x)), vget_low_u16(unsigned16(y)));
    const uint32x4_t high = vmull_high_u16(unsigned16(x), unsigned16(y));
    return in32(vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high)));
  });
}
inline Eight pair_products(Eight a, Eight b) {
  return each(a, b, [](int32x4_t x, int32x4_t y) {
    return vpaddq_s32(vmull_s16(vget_low_s16(in16(x)), vget_low_s16(in16(y))),
                      vmull_high_s16(in16(x), in16(y)));
  });
}
inline Eight even_products(Eight a, Eight b) {
  const int32x4_t x = vuzp1q_s32(a.low, a.high), y = vuzp1q_s32(b.low, b.high);
  return {in32(vmull_s32(vget_low_s32(x), vget_low_s32(y))), in32(vmull_high_s32(x, y))};
}
inline Eight even_products_unsigned(Eight a, Eight b) {
  const uint32x4_t x = unsigned32(vuzp1q_s32(a.low, a.high)), y = unsigned32(vuzp1q_s32(b.low, b.high));
  return {in32(vmull_u32(vget_low_u32(x), vget_low_u32(y))), in32(vmull_high_u32(x, y))};
}
inline Eight left32(Eight x, ShiftCount count) {
  return each(x, [&](int32x4_t lanes) { return vshlq_s32(lanes, vdupq_n_s32(count)); });
}
inline Eight left64(Eight x, Eight counts) {
  return each(x, counts, [](int32x4_t a, int32x4_t n) { return in32(vshlq_s64(in64(a), in64(n))); });
}
// There are no shifts to the right by what is known at run time alone: by a negative number to the left.
inline Eight right32(Eight x, ShiftCount count) {
  return each(x, [&](int32x4_t a) { return in32(vshlq_u32(unsigned32(a), vdupq_n_s32(-count))); });
}
inline Eight right32(Eight x, Eight counts) {
  return each(x, counts,
              [](int32x4_t a, int32x4_t n) { return in32(vshlq_u32(unsigned32(a), vnegq_s32(n))); });
}
inline Eight signed_right32(Eight x, ShiftCount count) {
  return each(x, [&](int32x4_t a) { return vshlq_s32(a, vdupq_n_s32(-count)); });
}
inline Eight signed_right32(Eight x, Eight counts) {
  return each(x, counts, [](int32x4_t a, int32x4_t n) { return vshlq_s32(a, vnegq_s32(n)); });
}
inline Eight right64(Eight x, ShiftCount count) {
  return each(x, [&](int32x4_t a) { return in32(vshlq_u64(unsigned64(a), vdupq_n_s64(-count))); });
}
inline Eight upper16(Eight x) {
  return each(x, [](int32x4_t a) { return in32(vshrq_n_u32(unsigned32(a), 16)); });
}
inline Eight lower16(Eight x) {
  return each(x, [](int32x4_t a) { return vandq_s32(a, vdupq_n_s32(0xFFFF)); });
}
inline Eight lower_halves(Eight low, Eight high) {
  return each(low, high, [](int32x4_t a, int32x4_t b) { return vsliq_n_s32(a, b, 16); });
}
inline Eight odd_lanes(Eight x) {
  return each(x, [](int32x4_t a) { return in32(vshrq_n_u64(unsigned64(a), 32)); });
}
inline Eight lower32(Eight x) {
  return each(x, [](int32x4_t a) { return in32(vandq_s64(in64(a), vdupq_n_s64(UINT32_MAX))); });
}
inline Eight high_words(Eight even, Eight odd) {
  return each(even, odd, [](int32x4_t a, int32x4_t b) { return vtrn2q_s32(a, b); });
}
inline Eight interleave(Eight even, Eight odd) {
  return each(even, odd, [](int32x4_t a, int32x4_t b) { return vtrn1q_s32(a, b); });
}
inline void load_apart(const int64_t* from, Eight& even, Eight& odd) {
  const int64x2x2_t low = vld2q_s64(from), high = vld2q_s64(from + 4);
  even = {in32(low.val[0]), in32(high.val[0])};
  odd = {in32(low.val[1]), in32(high.val[1])};
}
inline Eight look_up(Eight table, Eight x) {
  const uint8x16x2_t bytes = {{vreinterpretq_u8_s32(table.low), vreinterpretq_u8_s32(table.high)}};
  return each(x, [&](int32x4_t lanes) {
    // The four bytes of each number.
    const int32x4_t index = vandq_s32(lanes, vdupq_n_s32(7));
    const int32x4_t from = vmlaq_s32(vdupq_n_s32(0x03020100), index, vdupq_n_s32(0x04040404));
    return vreinterpretq_s32_u8(vqtbl2q_u8(bytes, vreinterpretq_u8_s32(from)));
  });
}
inline EightCodes narrow(Eight x) {
  return vqmovn_high_s32(vqmovn_s32(x.low), x.high);
}
inline Eight narrow(Eight x, Eight y) {
  return {in32(narrow(x)), in32(narrow(y))};
}
inline EightCodes all_codes(int16_t x) {
  return vdupq_n_s16(x);
}
inline void store_codes(void* to, EightCodes x) {
  vst1q_s16(static_cast<int16_t*>(to), x);
}
inline int64_t sum64(Eight x) {
  return vaddvq_s64(vaddq_s64(in64(x.low), in64(x.high)));
}
inline int64_t sum32(Eight x) {
  return vaddlvq_s32(x.low) + vaddlvq_s32(x.high);
}

}  // namespace
}  // namespace qeval::quant
