#pragma once

// Softmax in fixed point. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>

#include "quant/integer/run/kernels.h"
#include "quant/integer/run/lanes.h"

namespace qeval::quant {
namespace {

// The cubic of 2^−f/2^19, f below 2^16: with x = f/2^16 · ln 2/8, 1 − x·(1 − x/2·(1 − x/3)). All of it fits
// 16 bits, with 2^16 − 1 for 1, so that vectors compute sixteen at a time.
constexpr uint32_t kThird = 1893;   ///< ln 2/8 / 3 · 2^16
constexpr uint32_t kSecond = 2839;  ///< ln 2/8 / 2 · 2^16

#ifdef __AVX2__

/// 2^−y of the differences to `largest`, sixteen at a time, and their sum.
class LanePowers {
 public:
  LanePowers(const ExpTable& exp, int32_t largest)
      : top_(_mm256_set1_epi32(largest)),
        limit_(_mm256_set1_epi32(static_cast<int32_t>(exp.limit))),
        high_(_mm256_set1_epi32(static_cast<int32_t>(exp.high))),
        low_(_mm256_set1_epi32(static_cast<int32_t>(exp.low))),
        half_(_mm256_set1_epi32(1 << (exp.fraction_bits - 20))),
        whole_shift_(_mm_cvtsi32_si128(exp.fraction_bits)),
        fraction_shift_(_mm_cvtsi32_si128(exp.fraction_bits - 19)),
        powers_(load(exp.powers.data())),
        slopes_(load(exp.slopes.data())) {}

  void operator()(const int16_t* codes, uint32_t* out) {
    const __m256i first = exponent(codes);
    const __m256i second = exponent(codes + 8);
    const __m256i fraction = _mm256_srl_epi32(first, fraction_shift_);
    const __m256i fraction2 = _mm256_srl_epi32(second, fraction_shift_);
    // The first eight in the even 16-bit lanes, the others in the odd ones.
    const __m256i f = _mm256_blend_epi16(fraction, _mm256_slli_epi32(fraction2, 16), 0xAA);
    const __m256i one = _mm256_set1_epi16(-1);
    const __m256i third = _mm256_sub_epi16(one, _mm256_mulhi_epu16(f, _mm256_set1_epi16(kThird)));
    const __m256i inner = _mm256_mulhi_epu16(_mm256_mulhi_epu16(f, third), _mm256_set1_epi16(kSecond));
    const __m256i slope = _mm256_mulhi_epu16(f, _mm256_sub_epi16(one, inner));
    finish(first, fraction, _mm256_blend_epi16(slope, _mm256_setzero_si256(), 0xAA), out);
    finish(second, fraction2, _mm256_srli_epi32(slope, 16), out + 8);
  }
  uint64_t sum() const {
    // Modulo 2^64, which loses nothing: `both_` also added up 2^32 times the odd lanes.
    const auto odd = static_cast<uint64_t>(sum_lanes64(odd_));
    return static_cast<uint64_t>(sum_lanes64(both_)) - (odd << 32) + odd;
  }

 private:
  /// y, whose 16-bit products leave the upper halves of the lanes 0.
  __m256i exponent(const int16_t* codes) const {
    const __m256i below = _mm256_min_epi32(_mm256_sub_epi32(top_, load_codes(codes)), limit_);
    return _mm256_add_epi32(
        _mm256_add_epi32(_mm256_mullo_epi32(below, high_), _mm256_mulhi_epu16(below, low_)), half_);
  }
  void finish(__m256i y, __m256i fraction, __m256i slope, uint32_t* out) {
    const __m256i index = _mm256_srli_epi32(fraction, 16);  // of which the permutation reads three bits
    const __m256i drop =
        _mm256_srli_epi32(_mm256_mullo_epi32(_mm256_permutevar8x32_epi32(slopes_, index), slope), 4);
    const __m256i powers =
        _mm256_srlv_epi32(_mm256_sub_epi32(_mm256_permutevar8x32_epi32(powers_, index), drop),
                          _mm256_srl_epi32(y, whole_shift_));
    both_ = _mm256_add_epi64(both_, powers);
    odd_ = _mm256_add_epi64(odd_, odd_lanes(powers));
    store(out, powers);
  }

  __m256i top_, limit_, high_, low_, half_;
  __m128i whole_shift_, fraction_shift_;
  __m256i powers_, slopes_;
  __m256i both_ = _mm256_setzero_si256();
  __m256i odd_ = _mm256_setzero_si256();
};

int32_t largest_code(const int16_t* row, int64_t n) {
  int32_t largest = row[0];
  int64_t i = 0;
  if (n >= 16) {
    __m256i most = load(row);
    for (; i + 16 <= n; i += 16) most = _mm256_max_epi16(most, load(row + i));
    alignas(32) int16_t parts[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(parts), most);
    largest = *std::max_element(parts, parts + 16);
  }
  for (; i < n; ++i) largest = std::max<int32_t>(largest, row[i]);
  return largest;
}

uint64_t exponentials(const ExpTable& exp, int64_t n, const int16_t* row, uint32_t* powers) {
  const int32_t largest = largest_code(row, n);
  LanePowers sixteen(exp, largest);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) sixteen(row + i, powers + i);
  const int64_t left = n - i;
  if (left == 0) return sixteen.sum();
  int16_t codes[16];
  uint32_t results[16];
  std::copy(row + i, row + n, codes);
  std::fill(codes + left, codes + 16, static_cast<int16_t>(largest));
  sixteen(codes, results);
  std::copy(results, results + left, powers + i);
  return sixteen.sum() - (static_cast<uint64_t>(16 - left) << kExpBits);
}

#else

uint32_t power(const ExpTable& exp, uint32_t difference) {
  const uint32_t below = std::min(difference, exp.limit);
  const uint32_t y = below * exp.high + ((below * exp.low) >> 16) + (uint32_t{1} << (exp.fraction_bits - 20));
  const uint32_t fraction = y >> (exp.fraction_bits - 19);
  const uint32_t index = fraction >> 16 & 7;
  const uint32_t f = fraction & 0xFFFF;
  const uint32_t third = 0xFFFF - ((f * kThird) >> 16);
  const uint32_t second = 0xFFFF - ((((f * third) >> 16) * kSecond) >> 16);
  const uint32_t slope = (f * second) >> 16;
  return (exp.powers[index] - ((exp.slopes[index] * slope) >> 4)) >> (y >> exp.fraction_bits);
}

uint64_t exponentials(const ExpTable& exp, int64_t n, const int16_t* row, uint32_t* powers) {
  const int32_t largest = *std::max_element(row, row + n);
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    powers[i] = power(exp, static_cast<uint32_t>(largest - row[i]));
    sum += powers[i];
  }
  return sum;
}

#endif

int64_t shares(const uint32_t* powers, int64_t n, uint32_t reciprocal, int32_t shift, const CodeRange& codes,
               int16_t* row) {
  const uint64_t half = UINT64_C(1) << (shift - 1);
  int64_t i = 0;
  int64_t sum = 0;
#ifdef __AVX2__
  const __m256i factor = _mm256_set1_epi64x(reciprocal);
  const __m256i halves = _mm256_set1_epi64x(static_cast<int64_t>(half));
  const __m128i count = _mm_cvtsi32_si128(shift - 32);
  const LaneCodes to_codes(codes);
  const __m256i ones = _mm256_set1_epi16(1);
  const auto share8 = [&](const uint32_t* from) {
    const __m256i power8 = load(from);
    const __m256i even = _mm256_add_epi64(_mm256_mul_epu32(power8, factor), halves);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epu32(odd_lanes(power8), factor), halves);
    return _mm256_srl_epi32(_mm256_blend_epi32(odd_lanes(even), odd, 0xAA), count);
  };
  while (i + 16 <= n) {
    // 2^14 pairs of codes at most before a lane of 32 bits could overflow.
    __m256i pairs = _mm256_setzero_si256();
    const int64_t end = std::min(n, i + (int64_t{1} << 18));
    for (; i + 16 <= end; i += 16) {
      const __m256i sixteen = to_codes(share8(powers + i), share8(powers + i + 8));
      store(row + i, sixteen);
      pairs = _mm256_add_epi32(pairs, _mm256_madd_epi16(sixteen, ones));
    }
    sum += sum_lanes64(_mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(pairs)),
                                        _mm256_cvtepi32_epi64(_mm256_extracti128_si256(pairs, 1))));
  }
#endif
  // Shares fit 31 bits, so that codes may be clamped in 32.
  for (; i < n; ++i) {
    const auto share = static_cast<int32_t>((static_cast<uint64_t>(powers[i]) * reciprocal + half) >> shift);
    row[i] = static_cast<int16_t>(std::clamp(share + codes.zero_point, codes.lo, codes.hi));
    sum += row[i];
  }
  return sum;
}

}  // namespace
}  // namespace qeval::quant
