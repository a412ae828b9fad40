#pragma once

// Pieces that the vector kernels share. Compiled once per CPU path; no floating point.

#ifdef __AVX2__

#include <cstdint>

#include <immintrin.h>

#include "quant/integer/fixed_point.h"

namespace qeval::quant {
namespace {

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline void store(void* to, __m256i x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), x);
}
/// Eight int16_t as int32_t.
inline __m256i load_codes(const int16_t* from) {
  return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void store(void* to, __m128i x) {
  _mm_storeu_si128(static_cast<__m128i*>(to), x);
}
/// The odd 32-bit lanes, where the even ones were: what the 64-bit products read.
inline __m256i odd_lanes(__m256i x) {
  return _mm256_srli_epi64(x, 32);
}
/// Low words of `even` and of `odd`, side by side.
inline __m256i interleave(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
/// Modulo 2^64.
inline int64_t sum_lanes64(__m256i x) {
  alignas(32) uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), x);
  return static_cast<int64_t>(parts[0] + parts[1] + parts[2] + parts[3]);
}

/// x / 2^shift, half up, of |x| < 2^62 in 64-bit lanes; 0 ≤ shift ≤ 62. There is no arithmetic shift of
/// 64-bit lanes before AVX-512: 2^62 makes them positive for the time of a logical one.
class RoundingShift {
 public:
  explicit RoundingShift(int32_t shift)
      : count_(_mm_cvtsi32_si128(shift)),
        before_(_mm256_set1_epi64x((INT64_C(1) << 62) + (shift == 0 ? 0 : INT64_C(1) << (shift - 1)))),
        after_(_mm256_set1_epi64x(INT64_C(1) << (62 - shift))) {}

  __m256i operator()(__m256i x) const {
    return _mm256_sub_epi64(_mm256_srl_epi64(_mm256_add_epi64(x, before_), count_), after_);
  }

 private:
  __m128i count_;
  __m256i before_, after_;
};

/// rescale() of 64-bit lanes within the bound of the factor.
class LaneRescale {
 public:
  explicit LaneRescale(const Rescale& factor)
      : pre_(factor.pre_shift), post_(factor.shift), multiplier_(_mm256_set1_epi64x(factor.multiplier)) {}

  __m256i operator()(__m256i x) const { return post_(_mm256_mul_epi32(pre_(x), multiplier_)); }
  /// The same of what fits 32 bits already, by a factor without a first shift.
  __m256i narrow(__m256i x) const { return post_(_mm256_mul_epi32(x, multiplier_)); }

 private:
  RoundingShift pre_, post_;
  __m256i multiplier_;
};

/// What 32-bit lanes hold, raised by a zero point and clamped to 16-bit codes.
class LaneCodes {
 public:
  explicit LaneCodes(const CodeRange& codes)
      : zero_point_(_mm256_set1_epi32(codes.zero_point)),
        lo_(_mm256_set1_epi16(static_cast<int16_t>(codes.lo))),
        hi_(_mm256_set1_epi16(static_cast<int16_t>(codes.hi))) {}

  __m128i operator()(__m256i x) const {
    x = _mm256_add_epi32(x, zero_point_);
    const __m128i codes = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    return _mm_min_epi16(_mm_max_epi16(codes, _mm256_castsi256_si128(lo_)), _mm256_castsi256_si128(hi_));
  }
  /// Sixteen: x, then y. To saturate before the clamp changes nothing.
  __m256i operator()(__m256i x, __m256i y) const {
    const __m256i codes =
        _mm256_packs_epi32(_mm256_add_epi32(x, zero_point_), _mm256_add_epi32(y, zero_point_));
    return _mm256_min_epi16(_mm256_max_epi16(_mm256_permute4x64_epi64(codes, 0xD8), lo_), hi_);
  }

 private:
  __m256i zero_point_, lo_, hi_;
};

/// Codes of sums by one fast() factor.
class LaneRequantize {
 public:
  LaneRequantize(const Rescale& factor, const CodeRange& codes)
      : multiplier_(_mm256_set1_epi64x(factor.multiplier)),
        half_(_mm256_set1_epi64x(INT64_C(1) << (factor.shift + factor.lift() - 1))),
        lift_(_mm_cvtsi32_si128(factor.lift())),
        count_(_mm_cvtsi32_si128(factor.shift + factor.lift() - 32)),
        codes_(codes) {}

  __m128i operator()(__m256i sums) const { return codes_(scaled(sums)); }
  __m256i operator()(__m256i first, __m256i second) const { return codes_(scaled(first), scaled(second)); }

 private:
  __m256i scaled(__m256i sums) const {
    sums = _mm256_sll_epi32(sums, lift_);
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(sums, multiplier_), half_);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(odd_lanes(sums), multiplier_), half_);
    return _mm256_sra_epi32(_mm256_blend_epi32(odd_lanes(even), odd, 0xAA), count_);
  }

  __m256i multiplier_, half_;
  __m128i lift_, count_;
  LaneCodes codes_;
};

}  // namespace
}  // namespace qeval::quant

#endif
