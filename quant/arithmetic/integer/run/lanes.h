#pragma once

// Pieces that the vector kernels share. Compiled once per CPU path; no floating point.

#ifdef __AVX2__

#include <cstdint>

#include <immintrin.h>

#include "quant/arithmetic/integer/fixed_point.h"
#include "quant/arithmetic/integer/run/vectors.h"

namespace qeval::quant {
namespace {

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
/// Eight int16_t as int32_t.
inline __m256i load_codes(const int16_t* from) {
  return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void store(void* to, __m128i x) {
  _mm_storeu_si128(static_cast<__m128i*>(to), x);
}
/// Low words of `even` and of `odd`, side by side.
inline __m256i interleave(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
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

 private:
  __m256i zero_point_, lo_, hi_;
};

/// The same of two vectors, the one's lanes before the other's.
class WideCodes {
 public:
  static constexpr int64_t kCount = sizeof(WideVector) / sizeof(int16_t);

  explicit WideCodes(const CodeRange& codes)
      : zero_point_(Widest::all32(codes.zero_point)),
        lo_(Widest::all16(static_cast<int16_t>(codes.lo))),
        hi_(Widest::all16(static_cast<int16_t>(codes.hi))) {}

  WideVector operator()(WideVector x, WideVector y) const {
    // To saturate before the clamp changes nothing.
    return clamp16(narrow(add32(x, zero_point_), add32(y, zero_point_)), lo_, hi_);
  }

 private:
  WideVector zero_point_, lo_, hi_;
};

/// Sums by one fast() factor.
template <typename Of>
class LaneScale {
  using Vector = typename Of::Vector;

 public:
  explicit LaneScale(const Rescale& factor)
      : multiplier_(Of::all64(factor.multiplier)),
        half_(Of::all64(INT64_C(1) << (factor.shift + factor.lift() - 1))),
        lift_(_mm_cvtsi32_si128(factor.lift())),
        count_(_mm_cvtsi32_si128(factor.shift + factor.lift() - 32)) {}

  Vector operator()(Vector sums) const {
    sums = left32(sums, lift_);
    const Vector even = add64(even_products(sums, multiplier_), half_);
    const Vector odd = add64(even_products(odd_lanes(sums), multiplier_), half_);
    return signed_right32(high_words(even, odd), count_);
  }

 private:
  Vector multiplier_, half_;
  __m128i lift_, count_;
};

/// Codes of sums by one fast() factor.
class LaneRequantize {
 public:
  LaneRequantize(const Rescale& factor, const CodeRange& codes)
      : scale_(factor), scale8_(factor), to_codes_(codes), to_codes8_(codes) {}

  /// out [n] ← codes. sums<Bits…>(i) are those of the elements from i on, as many as the vector has lanes.
  /// Returns how many were done: less than eight are left.
  template <typename Sums>
  int64_t operator()(int64_t n, int16_t* out, const Sums& sums) const {
    constexpr int64_t kCount = WideCodes::kCount;
    int64_t i = 0;
    for (; i + kCount <= n; i += kCount) {
      store(out + i, to_codes_(scale_(sums.template operator()<Widest>(i)),
                               scale_(sums.template operator()<Widest>(i + kCount / 2))));
    }
    for (; i + 8 <= n; i += 8) store(out + i, to_codes8_(scale8_(sums.template operator()<Bits256>(i))));
    return i;
  }

 private:
  LaneScale<Widest> scale_;
  LaneScale<Bits256> scale8_;
  WideCodes to_codes_;
  LaneCodes to_codes8_;
};

}  // namespace
}  // namespace qeval::quant

#endif
