#pragma once

// lanes.h with NEON, and the dot products of the CPUs that have them (asimddp, i8mm).

#include <cstdint>
#include <cstring>

#include <arm_neon.h>

namespace qeval::quant {
namespace {

struct Lanes {
  using Int = int32x4_t;
  using Float = float32x4_t;
  // Of 32 registers, 24 hold sums and totals of blocks in sub-blocks.
  static constexpr int64_t kCount = 4, kVectors = 2, kRows = 4;

  static Int of_bytes(uint8x16_t x) { return vreinterpretq_s32_u8(x); }
  static uint8x16_t bytes(Int x) { return vreinterpretq_u8_s32(x); }

  static Int load(const void* from) { return of_bytes(vld1q_u8(static_cast<const uint8_t*>(from))); }
  static Int all(int32_t x) { return vdupq_n_s32(x); }
  static Int low_nibbles(Int x) { return of_bytes(vandq_u8(bytes(x), vdupq_n_u8(15))); }
  static Int high_nibbles(Int x) { return of_bytes(vshrq_n_u8(bytes(x), 4)); }
  static Int table(const uint8_t* sixteen) { return load(sixteen); }
  static Int look_up(Int table, Int nibbles) { return of_bytes(vqtbl1q_u8(bytes(table), bytes(nibbles))); }
  static Int widen(const int8_t* from) {
    uint32_t four = 0;
    std::memcpy(&four, from, sizeof(four));
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
  }
  static Int widen_pairs(const uint8_t* from) { return vreinterpretq_s32_u16(vmovl_u8(vld1_u8(from))); }
  static Int add(Int a, Int b) { return vaddq_s32(a, b); }
  static Int multiply(Int a, Int b) { return vmulq_s32(a, b); }
  static Int pair_products(Int a, Int b) {
    const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    return vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
  }

#ifdef __ARM_FEATURE_MATMUL_INT8
  static constexpr bool kSignedBytes = false;
  static Int quad_products(Int sums, Int codes, Int x) {
    return vusdotq_s32(sums, bytes(codes), vreinterpretq_s8_s32(x));
  }
#else
  static constexpr bool kSignedBytes = true;
  /// Bytes less 128, as signed ones.
  static Int less_128(Int codes) {
    return of_bytes(veorq_u8(bytes(codes), vdupq_n_u8(0x80)));
  }
  /// Of codes that are below 128, or less_128.
  static Int quad_products(Int sums, Int codes, Int x) {
    const int8x16_t a = vreinterpretq_s8_s32(codes), b = vreinterpretq_s8_s32(x);
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sums, a, b);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vaddq_s32(sums, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))));
#endif
  }
#endif
#define QEVAL_QUAD_PRODUCTS

  static Float load(const float* from) {
    return vld1q_f32(from);
  }
  static void store(float* to, Float x) {
    vst1q_f32(to, x);
  }
  static Float all(float x) {
    return vdupq_n_f32(x);
  }
  static Float to_float(Int x) {
    return vcvtq_f32_s32(x);
  }
  static Float add(Float a, Float b) {
    return vaddq_f32(a, b);
  }
  static Float subtract(Float a, Float b) {
    return vsubq_f32(a, b);
  }
  static Float multiply(Float a, Float b) {
    return vmulq_f32(a, b);
  }
  static uint16x4_t halves(const uint8_t* from) {
    return vreinterpret_u16_u8(vld1_u8(from));
  }
  static Float widen_f16(const uint8_t* from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(halves(from)));
  }
  static Float widen_bf16(const uint8_t* from) {
    return vreinterpretq_f32_u32(vshll_n_u16(halves(from), 16));
  }
};

}  // namespace
}  // namespace qeval::quant
