#pragma once

// The operations of 256- and 512-bit vectors under one name, for kernels that are written for either.
// Compiled once per CPU path; no floating point. Emulated instructions (the tests') leave 256 bits.

#include <cstdint>

#include <immintrin.h>

namespace qeval::quant {
namespace {

using Eight = __m256i;       ///< lanes of 32 bits
using EightCodes = __m128i;  ///< of 16 bits
using ShiftCount = __m128i;

inline ShiftCount shift_count(int32_t count) {
  return _mm_cvtsi32_si128(count);
}

struct Bits256 {
  using Vector = Eight;
  static __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  /// int16_t as int32_t.
  static __m256i widen(const int16_t* from) {
    return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static __m256i all16(int16_t x) { return _mm256_set1_epi16(x); }
  static __m256i all32(int32_t x) { return _mm256_set1_epi32(x); }
  static __m256i all64(int64_t x) { return _mm256_set1_epi64x(x); }
  /// Eight numbers, again and again, for look_up().
  static __m256i table(const uint32_t* eight) { return load(eight); }
};

inline void store(void* to, __m256i x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), x);
}
inline __m256i add32(__m256i a, __m256i b) {
  return _mm256_add_epi32(a, b);
}
inline __m256i add64(__m256i a, __m256i b) {
  return _mm256_add_epi64(a, b);
}
inline __m256i sub16(__m256i a, __m256i b) {
  return _mm256_sub_epi16(a, b);
}
inline __m256i sub32(__m256i a, __m256i b) {
  return _mm256_sub_epi32(a, b);
}
inline __m256i min32(__m256i a, __m256i b) {
  return _mm256_min_epi32(a, b);
}
inline __m256i clamp16(__m256i x, __m256i lo, __m256i hi) {
  return _mm256_min_epi16(_mm256_max_epi16(x, lo), hi);
}
/// The low 32 bits of products.
inline __m256i product32(__m256i a, __m256i b) {
  return _mm256_mullo_epi32(a, b);
}
/// The high 16 bits of unsigned 16-bit products.
inline __m256i high_product16(__m256i a, __m256i b) {
  return _mm256_mulhi_epu16(a, b);
}
/// Products of neighbouring 16-bit lanes, added up in pairs.
inline __m256i pair_products(__m256i a, __m256i b) {
  return _mm256_madd_epi16(a, b);
}
/// 64-bit products of the even 32-bit lanes.
inline __m256i even_products(__m256i a, __m256i b) {
  return _mm256_mul_epi32(a, b);
}
inline __m256i even_products_unsigned(__m256i a, __m256i b) {
  return _mm256_mul_epu32(a, b);
}
inline __m256i left32(__m256i x, ShiftCount count) {
  return _mm256_sll_epi32(x, count);
}
inline __m256i right32(__m256i x, ShiftCount count) {
  return _mm256_srl_epi32(x, count);
}
inline __m256i right32(__m256i x, __m256i counts) {
  return _mm256_srlv_epi32(x, counts);
}
inline __m256i signed_right32(__m256i x, ShiftCount count) {
  return _mm256_sra_epi32(x, count);
}
/// The upper halves of the 32-bit lanes, zeros above them.
inline __m256i upper16(__m256i x) {
  return _mm256_srli_epi32(x, 16);
}
/// The lower halves of the lanes, zeros above them.
inline __m256i lower16(__m256i x) {
  return _mm256_blend_epi16(x, _mm256_setzero_si256(), 0xAA);
}
/// The lower halves of the lanes of both, those of `high` above those of `low`.
inline __m256i lower_halves(__m256i low, __m256i high) {
  return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA);
}
/// The odd 32-bit lanes, where the even ones were: what the 64-bit products read.
inline __m256i odd_lanes(__m256i x) {
  return _mm256_srli_epi64(x, 32);
}
/// The high words of 64-bit lanes, side by side: of `even`, then of `odd`.
inline __m256i high_words(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(odd_lanes(even), odd, 0xAA);
}
/// table[x % 8] of each 32-bit lane; the table repeats itself.
inline __m256i look_up(__m256i table, __m256i x) {
  return _mm256_permutevar8x32_epi32(table, x);
}
/// The 32-bit lanes of x, then of y, saturated to 16 bits.
inline __m256i narrow(__m256i x, __m256i y) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(x, y), 0xD8);
}
/// Modulo 2^64.
inline int64_t sum64(__m256i x) {
  alignas(32) uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), x);
  return static_cast<int64_t>(parts[0] + parts[1] + parts[2] + parts[3]);
}
inline int64_t sum32(__m256i x) {
  return sum64(_mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(x)),
                                _mm256_cvtepi32_epi64(_mm256_extracti128_si256(x, 1))));
}

/// Low words of the 64-bit lanes of `even` and of `odd`, side by side.
inline __m256i interleave(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
/// The low words of 64-bit lanes, zeros above them.
inline __m256i lower32(__m256i x) {
  return _mm256_and_si256(x, _mm256_set1_epi64x(UINT32_MAX));
}
inline __m256i sub64(__m256i a, __m256i b) {
  return _mm256_sub_epi64(a, b);
}
inline __m256i left64(__m256i x, __m256i counts) {
  return _mm256_sllv_epi64(x, counts);
}
inline __m256i right64(__m256i x, ShiftCount count) {
  return _mm256_srl_epi64(x, count);
}
inline __m256i signed_right32(__m256i x, __m256i counts) {
  return _mm256_srav_epi32(x, counts);
}
inline __m256i clamp64(__m256i x, __m256i lo, __m256i hi) {
  const __m256i raised = _mm256_blendv_epi8(x, lo, _mm256_cmpgt_epi64(lo, x));
  return _mm256_blendv_epi8(raised, hi, _mm256_cmpgt_epi64(raised, hi));
}
inline __m256i max16(__m256i a, __m256i b) {
  return _mm256_max_epi16(a, b);
}
/// Eight numbers as the 64-bit products of even and of odd lanes have them.
inline void load_apart(const int64_t* from, __m256i& even, __m256i& odd) {
  const __m256i low = Bits256::load(from), high = Bits256::load(from + 4);
  even = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(low, high), 0xD8);  // of 0 4 2 6
  odd = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(low, high), 0xD8);   // of 1 5 3 7
}
inline EightCodes all_codes(int16_t x) {
  return _mm_set1_epi16(x);
}
inline EightCodes clamp_codes(EightCodes x, EightCodes lo, EightCodes hi) {
  return _mm_min_epi16(_mm_max_epi16(x, lo), hi);
}
/// Saturated.
inline EightCodes narrow(__m256i x) {
  return _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
inline void store_codes(void* to, EightCodes x) {
  _mm_storeu_si128(static_cast<__m128i*>(to), x);
}

#if defined(__AVX512BW__) && !defined(QEVAL_EMULATE_AVX512)

struct Bits512 {
  using Vector = __m512i;
  static __m512i load(const void* from) { return _mm512_loadu_si512(from); }
  static __m512i widen(const int16_t* from) {
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static __m512i all16(int16_t x) { return _mm512_set1_epi16(x); }
  static __m512i all32(int32_t x) { return _mm512_set1_epi32(x); }
  static __m512i all64(int64_t x) { return _mm512_set1_epi64(x); }
  static __m512i table(const uint32_t* eight) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(eight)));
  }
};

inline void store(void* to, __m512i x) {
  _mm512_storeu_si512(to, x);
}
inline __m512i add32(__m512i a, __m512i b) {
  return _mm512_add_epi32(a, b);
}
inline __m512i add64(__m512i a, __m512i b) {
  return _mm512_add_epi64(a, b);
}
inline __m512i sub16(__m512i a, __m512i b) {
  return _mm512_sub_epi16(a, b);
}
inline __m512i sub32(__m512i a, __m512i b) {
  return _mm512_sub_epi32(a, b);
}
inline __m512i min32(__m512i a, __m512i b) {
  return _mm512_min_epi32(a, b);
}
inline __m512i clamp16(__m512i x, __m512i lo, __m512i hi) {
  return _mm512_min_epi16(_mm512_max_epi16(x, lo), hi);
}
inline __m512i product32(__m512i a, __m512i b) {
  return _mm512_mullo_epi32(a, b);
}
inline __m512i high_product16(__m512i a, __m512i b) {
  return _mm512_mulhi_epu16(a, b);
}
inline __m512i pair_products(__m512i a, __m512i b) {
  return _mm512_madd_epi16(a, b);
}
inline __m512i even_products(__m512i a, __m512i b) {
  return _mm512_mul_epi32(a, b);
}
inline __m512i even_products_unsigned(__m512i a, __m512i b) {
  return _mm512_mul_epu32(a, b);
}
inline __m512i left32(__m512i x, ShiftCount count) {
  return _mm512_sll_epi32(x, count);
}
inline __m512i right32(__m512i x, ShiftCount count) {
  return _mm512_srl_epi32(x, count);
}
inline __m512i right32(__m512i x, __m512i counts) {
  return _mm512_srlv_epi32(x, counts);
}
inline __m512i signed_right32(__m512i x, ShiftCount count) {
  return _mm512_sra_epi32(x, count);
}
inline __m512i upper16(__m512i x) {
  return _mm512_srli_epi32(x, 16);
}
inline __m512i lower16(__m512i x) {
  return _mm512_and_si512(x, _mm512_set1_epi32(0xFFFF));
}
inline __m512i lower_halves(__m512i low, __m512i high) {
  return _mm512_mask_blend_epi16(0xAAAAAAAA, low, _mm512_slli_epi32(high, 16));
}
inline __m512i odd_lanes(__m512i x) {
  return _mm512_srli_epi64(x, 32);
}
inline __m512i high_words(__m512i even, __m512i odd) {
  return _mm512_mask_blend_epi32(0xAAAA, odd_lanes(even), odd);
}
inline __m512i look_up(__m512i table, __m512i x) {
  return _mm512_permutexvar_epi32(x, table);
}
inline __m512i narrow(__m512i x, __m512i y) {
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), _mm512_packs_epi32(x, y));
}
inline __m512i interleave(__m512i even, __m512i odd) {
  return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}
inline __m512i lower32(__m512i x) {
  return _mm512_and_si512(x, _mm512_set1_epi64(UINT32_MAX));
}
inline __m512i sub64(__m512i a, __m512i b) {
  return _mm512_sub_epi64(a, b);
}
inline __m512i left64(__m512i x, __m512i counts) {
  return _mm512_sllv_epi64(x, counts);
}
inline __m512i right64(__m512i x, ShiftCount count) {
  return _mm512_srl_epi64(x, count);
}
inline __m512i signed_right32(__m512i x, __m512i counts) {
  return _mm512_srav_epi32(x, counts);
}
inline __m512i clamp64(__m512i x, __m512i lo, __m512i hi) {
  return _mm512_min_epi64(_mm512_max_epi64(x, lo), hi);
}
inline int64_t sum64(__m512i x) {
  return sum64(_mm256_add_epi64(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1)));
}
inline int64_t sum32(__m512i x) {
  return sum32(_mm512_castsi512_si256(x)) + sum32(_mm512_extracti64x4_epi64(x, 1));
}

using Widest = Bits512;

#else

using Widest = Bits256;

#endif

}  // namespace
}  // namespace qeval::quant
