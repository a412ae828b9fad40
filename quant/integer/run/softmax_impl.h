#pragma once

// Softmax in fixed point. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>

#include "quant/integer/run/kernels.h"
#include "quant/integer/run/lanes.h"

namespace qeval::quant {
namespace {

// The cubic of 2^−f/2^18, f below 2^15: with x = f/2^15 · ln 2/8, 1 − x·(1 − x/2·(1 − x/3)).
constexpr uint32_t kThird = 1893;   ///< ln 2/8 / 3 · 2^16
constexpr uint32_t kSecond = 5678;  ///< ln 2/8 / 2 · 2^17

uint32_t power(const ExpTable& exp, uint32_t difference) {
  const uint32_t below = std::min(difference, exp.limit);
  const uint32_t y = below * exp.high + ((below * exp.low) >> 16) + (uint32_t{1} << (exp.fraction_bits - 19));
  const uint32_t fraction = y >> (exp.fraction_bits - 18);
  const uint32_t index = fraction >> 15 & 7;
  const uint32_t f = fraction & 0x7FFF;
  const uint32_t third = (uint32_t{1} << 16) - ((f * kThird) >> 15);
  const uint32_t second = (uint32_t{1} << 17) - ((((f * third) >> 16) * kSecond) >> 15);
  const uint32_t slope = (f * second) >> 16;
  return (exp.powers[index] - ((exp.slopes[index] * slope) >> 4)) >> (y >> exp.fraction_bits);
}

uint64_t exponentials(const ExpTable& exp, int64_t n, const int16_t* row, uint32_t* powers) {
  int32_t largest = row[0];
  uint64_t sum = 0;
  int64_t i = 0;
#ifdef __AVX2__
  if (n >= 16) {
    __m256i most = load(row);
    for (; i + 16 <= n; i += 16) most = _mm256_max_epi16(most, load(row + i));
    alignas(32) int16_t parts[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(parts), most);
    largest = *std::max_element(parts, parts + 16);
  }
#endif
  for (; i < n; ++i) largest = std::max<int32_t>(largest, row[i]);
  i = 0;
#ifdef __AVX2__
  const __m256i top = _mm256_set1_epi32(largest);
  const __m256i limit = _mm256_set1_epi32(static_cast<int32_t>(exp.limit));
  const __m256i high = _mm256_set1_epi32(static_cast<int32_t>(exp.high));
  const __m256i low = _mm256_set1_epi32(static_cast<int32_t>(exp.low));
  const __m256i half = _mm256_set1_epi32(1 << (exp.fraction_bits - 19));
  const __m128i whole_shift = _mm_cvtsi32_si128(exp.fraction_bits);
  const __m128i fraction_shift = _mm_cvtsi32_si128(exp.fraction_bits - 18);
  const __m256i table = load(exp.powers.data());
  const __m256i slopes = load(exp.slopes.data());
  const __m256i fifteen_bits = _mm256_set1_epi32(0x7FFF);
  const __m256i thirds = _mm256_set1_epi32(kThird);
  const __m256i seconds = _mm256_set1_epi32(kSecond);
  const __m256i one16 = _mm256_set1_epi32(1 << 16);
  const __m256i one17 = _mm256_set1_epi32(1 << 17);
  const __m256i low_word = _mm256_set1_epi64x(UINT32_MAX);
  __m256i sums = _mm256_setzero_si256();
  for (; i + 8 <= n; i += 8) {
    // The 16-bit products leave the upper halves of the lanes 0.
    const __m256i below = _mm256_min_epi32(_mm256_sub_epi32(top, load_codes(row + i)), limit);
    const __m256i y = _mm256_add_epi32(
        _mm256_add_epi32(_mm256_mullo_epi32(below, high), _mm256_mulhi_epu16(below, low)), half);
    const __m256i fraction = _mm256_srl_epi32(y, fraction_shift);
    const __m256i index = _mm256_srli_epi32(fraction, 15);  // of which the permutation reads three bits
    const __m256i f = _mm256_and_si256(fraction, fifteen_bits);
    const __m256i third = _mm256_sub_epi32(one16, _mm256_srli_epi32(_mm256_madd_epi16(f, thirds), 15));
    const __m256i inner = _mm256_srli_epi32(_mm256_mullo_epi32(f, third), 16);
    const __m256i second = _mm256_sub_epi32(one17, _mm256_srli_epi32(_mm256_madd_epi16(inner, seconds), 15));
    const __m256i slope = _mm256_srli_epi32(_mm256_mullo_epi32(f, second), 16);
    const __m256i drop =
        _mm256_srli_epi32(_mm256_mullo_epi32(_mm256_permutevar8x32_epi32(slopes, index), slope), 4);
    const __m256i power8 = _mm256_srlv_epi32(
        _mm256_sub_epi32(_mm256_permutevar8x32_epi32(table, index), drop), _mm256_srl_epi32(y, whole_shift));
    sums = _mm256_add_epi64(sums, _mm256_add_epi64(_mm256_and_si256(power8, low_word), odd_lanes(power8)));
    store(powers + i, power8);
  }
  sum = static_cast<uint64_t>(sum_lanes64(sums));
#endif
  for (; i < n; ++i) {
    powers[i] = power(exp, static_cast<uint32_t>(largest - row[i]));
    sum += powers[i];
  }
  return sum;
}

int64_t shares(const uint32_t* powers, int64_t n, uint32_t reciprocal, int32_t shift, const CodeRange& codes,
               int16_t* row) {
  const uint64_t half = UINT64_C(1) << (shift - 1);
  int64_t i = 0;
  int64_t sum = 0;
#ifdef __AVX2__
  const __m256i factor = _mm256_set1_epi64x(reciprocal);
  const __m256i halves = _mm256_set1_epi64x(static_cast<int64_t>(half));
  const __m128i count = _mm_cvtsi32_si128(shift - 32);
  const __m256i zero_point = _mm256_set1_epi32(codes.zero_point);
  const __m256i lo = _mm256_set1_epi32(codes.lo);
  const __m256i hi = _mm256_set1_epi32(codes.hi);
  __m256i even_sums = _mm256_setzero_si256();
  const __m256i sign = _mm256_set1_epi32(INT32_MIN);
  const __m256i low_word = _mm256_set1_epi64x(UINT32_MAX);
  for (; i + 8 <= n; i += 8) {
    const __m256i power8 = load(powers + i);
    const __m256i even = _mm256_add_epi64(_mm256_mul_epu32(power8, factor), halves);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epu32(odd_lanes(power8), factor), halves);
    const __m256i share = _mm256_srl_epi32(_mm256_blend_epi32(odd_lanes(even), odd, 0xAA), count);
    const __m256i code = clamp_lanes(_mm256_add_epi32(share, zero_point), lo, hi);
    store_codes(row + i, code);
    // As unsigned numbers, 2^31 too large each.
    const __m256i raised = _mm256_xor_si256(code, sign);
    even_sums =
        _mm256_add_epi64(even_sums, _mm256_add_epi64(_mm256_and_si256(raised, low_word), odd_lanes(raised)));
  }
  sum = sum_lanes64(even_sums) - (i << 31);
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
