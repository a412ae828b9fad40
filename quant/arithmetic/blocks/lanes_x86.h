#pragma once

// lanes.h with AVX2, AVX-512 and their dot products.

#include <cstdint>
#include <cstring>

#include <immintrin.h>

namespace qeval::quant {
namespace {

#ifdef __AVX512BW__

struct Lanes {
  using Int = __m512i;
  using Float = __m512;
  static constexpr int64_t kCount = 16;
  static constexpr int64_t kVectors = 2;  ///< whose sums wait for the same broadcasts of the input
  static constexpr int64_t kRows = 6;

  static Int load(const void* from) { return _mm512_loadu_si512(from); }
  static Int all(int32_t x) { return _mm512_set1_epi32(x); }
  static Int low_nibbles(Int x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
  static Int high_nibbles(Int x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }
  static Int table(const uint8_t* sixteen) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }
  static Int look_up(Int table, Int nibbles) { return _mm512_shuffle_epi8(table, nibbles); }
  /// kCount bytes, and 2 · kCount of them as pairs of 16 bits.
  static Int widen(const int8_t* from) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Int widen_pairs(const uint8_t* from) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int multiply(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  static Int pair_products(Int a, Int b) { return _mm512_madd_epi16(a, b); }

#ifdef __AVX512VNNI__
  static constexpr bool kSignedBytes = false;
  static Int quad_products(Int sums, Int codes, Int x) {
    return _mm512_dpbusd_epi32(sums, codes, x);
  }
#define QEVAL_QUAD_PRODUCTS
#else
  static constexpr bool kSignedBytes = true;
  static Int add16(Int a, Int b) {
    return _mm512_add_epi16(a, b);
  }
  /// Products of 8-bit lanes in pairs, codes unsigned; saturates at 16 bits.
  static Int byte_products(Int codes, Int x) {
    return _mm512_maddubs_epi16(codes, x);
  }
  /// The same of codes less 128.
  static Int signed_products(Int codes, Int x) {
    codes = _mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80)));
    return _mm512_maddubs_epi16(_mm512_abs_epi8(codes), _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(codes),
                                                                             _mm512_setzero_si512(), x));
  }
  static Int add_pairs(Int sums, Int x) {
    return _mm512_add_epi32(sums, _mm512_madd_epi16(x, _mm512_set1_epi16(1)));
  }
#endif

  static Float load(const float* from) {
    return _mm512_loadu_ps(from);
  }
  static void store(float* to, Float x) {
    _mm512_storeu_ps(to, x);
  }
  static Float all(float x) {
    return _mm512_set1_ps(x);
  }
  static Float to_float(Int x) {
    return _mm512_cvtepi32_ps(x);
  }
  static Float add(Float a, Float b) {
    return _mm512_add_ps(a, b);
  }
  static Float subtract(Float a, Float b) {
    return _mm512_sub_ps(a, b);
  }
  static Float multiply(Float a, Float b) {
    return _mm512_mul_ps(a, b);
  }
  static Float widen_f16(const uint8_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Float widen_bf16(const uint8_t* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
  }
};

#else

struct Lanes {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int64_t kCount = 8, kVectors = 1, kRows = 4;

  static Int load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static Int all(int32_t x) { return _mm256_set1_epi32(x); }
  static Int low_nibbles(Int x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
  static Int high_nibbles(Int x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }
  static Int table(const uint8_t* sixteen) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }
  static Int look_up(Int table, Int nibbles) { return _mm256_shuffle_epi8(table, nibbles); }
  static Int widen(const int8_t* from) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static Int widen_pairs(const uint8_t* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int multiply(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static Int pair_products(Int a, Int b) { return _mm256_madd_epi16(a, b); }

#if defined(__AVXVNNI__) || defined(QEVAL_EMULATE_AVX_VNNI)
  static constexpr bool kSignedBytes = false;
  static Int quad_products(Int sums, Int codes, Int x) {
    return _mm256_dpbusd_avx_epi32(sums, codes, x);
  }
#define QEVAL_QUAD_PRODUCTS
#else
  static constexpr bool kSignedBytes = true;
  static Int add16(Int a, Int b) {
    return _mm256_add_epi16(a, b);
  }
  static Int byte_products(Int codes, Int x) {
    return _mm256_maddubs_epi16(codes, x);
  }
  static Int signed_products(Int codes, Int x) {
    codes = _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)));
    return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
  }
  static Int add_pairs(Int sums, Int x) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(x, _mm256_set1_epi16(1)));
  }
#endif

  static Float load(const float* from) {
    return _mm256_loadu_ps(from);
  }
  static void store(float* to, Float x) {
    _mm256_storeu_ps(to, x);
  }
  static Float all(float x) {
    return _mm256_set1_ps(x);
  }
  static Float to_float(Int x) {
    return _mm256_cvtepi32_ps(x);
  }
  static Float add(Float a, Float b) {
    return _mm256_add_ps(a, b);
  }
  static Float subtract(Float a, Float b) {
    return _mm256_sub_ps(a, b);
  }
  static Float multiply(Float a, Float b) {
    return _mm256_mul_ps(a, b);
  }
  static Float widen_f16(const uint8_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Float widen_bf16(const uint8_t* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16));
  }
};

#endif

}  // namespace
}  // namespace qeval::quant
