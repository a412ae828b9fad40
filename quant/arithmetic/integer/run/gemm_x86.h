#pragma once

// What integer matrix products are made of on x86-64. Compiled once per CPU path; no floating point.
// QEVAL_BYTE_PRODUCTS says that there are products of bytes (VNNI), QEVAL_GROUPED_QUADS that groups of them
// stand in (quads_impl.h).

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {
namespace {

inline int32_t load_int32(const void* from) {
  int32_t x = 0;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

#if defined(__AVX512BW__)

constexpr int64_t kTileRows = 12;

/// kPanel sums, and what is multiplied into them at a step: pairs of 16-bit codes of each column.
struct Sums {
  __m512i all;
};
inline Sums load_sums(const int32_t* from) {
  return {_mm512_loadu_si512(from)};
}
inline void store_sums(int32_t* to, const Sums& sums) {
  _mm512_storeu_si512(to, sums.all);
}
inline Sums load_pairs(const int8_t* b) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)))};
}
inline void add_pairs(Sums& sums, int32_t pair, const Sums& codes) {
#ifdef __AVX512VNNI__
  sums.all = _mm512_dpwssd_epi32(sums.all, _mm512_set1_epi32(pair), codes.all);
#else
  sums.all = _mm512_add_epi32(sums.all, _mm512_madd_epi16(_mm512_set1_epi32(pair), codes.all));
#endif
}

#elif defined(__AVX2__)

// Two registers of sums a row, two of B, one of A and one for the product: six rows fit sixteen registers.
constexpr int64_t kTileRows = 6;

/// kPanel sums, and what is multiplied into them at a step: pairs of 16-bit codes of each column.
struct Sums {
  __m256i left, right;
};
inline Sums load_sums(const int32_t* from) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 8))};
}
inline void store_sums(int32_t* to, const Sums& sums) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sums.left);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), sums.right);
}
inline Sums load_pairs(const int8_t* b) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b))),
          _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 16)))};
}
inline void add_pairs(Sums& sums, int32_t pair, const Sums& codes) {
  const __m256i x = _mm256_set1_epi32(pair);
#ifdef __AVXVNNI__
  sums.left = _mm256_dpwssd_avx_epi32(sums.left, x, codes.left);
  sums.right = _mm256_dpwssd_avx_epi32(sums.right, x, codes.right);
#else
  sums.left = _mm256_add_epi32(sums.left, _mm256_madd_epi16(x, codes.left));
  sums.right = _mm256_add_epi32(sums.right, _mm256_madd_epi16(x, codes.right));
#endif
}

#endif

// What is multiplied into sums: pairs of 16-bit codes of each column, or quads of 8-bit ones.
using Pairs = Sums;
using Quads = Sums;

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

#define QEVAL_BYTE_PRODUCTS

#ifdef __AVX512VNNI__
constexpr int64_t kQuadPanels = 2;  ///< whose sums, 24 registers, wait for the same broadcasts of A
#else
constexpr int64_t kQuadPanels = 1;
#endif

// vpdpbusd multiplies four 8-bit codes a lane: A as bytes, B as quads [k / 4, kPanel, 4]. It adds up in 32
// bits without saturating on the way (vpdpbusds would).

inline Quads load_quads(const int8_t* b) {
#ifdef __AVX512VNNI__
  return {_mm512_loadu_si512(b)};
#else
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32))};
#endif
}
#ifdef __AVX512VNNI__
using Broadcast = __m512i;
inline Broadcast broadcast_int32(const void* from) {
  return _mm512_set1_epi32(load_int32(from));
}
#else
using Broadcast = __m256i;
inline Broadcast broadcast_int32(const void* from) {
  return _mm256_set1_epi32(load_int32(from));
}
#endif
inline void add_quads(Sums& sums, Broadcast quad, const Quads& codes) {
#ifdef __AVX512VNNI__
  sums.all = _mm512_dpbusd_epi32(sums.all, quad, codes.all);
#else
  sums.left = _mm256_dpbusd_avx_epi32(sums.left, quad, codes.left);
  sums.right = _mm256_dpbusd_avx_epi32(sums.right, quad, codes.right);
#endif
}

/// The same from a panel's pairs [2, kPanel, 2].
inline Quads load_pairs_as_quads(const int8_t* b) {
#ifdef __AVX512VNNI__
  alignas(64) static constexpr int16_t kOrder[] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                   21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                   11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return {_mm512_permutexvar_epi16(_mm512_loadu_si512(kOrder), _mm512_loadu_si512(b))};
#else
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 2 * kPanel));
  const __m256i low = _mm256_unpacklo_epi16(first, second);
  const __m256i high = _mm256_unpackhi_epi16(first, second);
  return {_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31)};
#endif
}

/// Codes of 0 … 255 as bytes.
inline void narrow_32(const int16_t* codes, uint8_t* bytes) {
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes),
                      _mm256_permute4x64_epi64(_mm256_packus_epi16(first, second), 0xD8));
}

#else

// Products of 8-bit codes without VNNI: of groups that cannot leave 16 bits.
#define QEVAL_GROUPED_QUADS

constexpr int64_t kQuadRows = 6;

#ifdef __AVX512BW__

template <int GROUP, typename Inputs>
inline void add_group(Sums& sums, const uint8_t* a, const Inputs& input, int64_t entry, const int8_t* b) {
  __m512i lanes = _mm512_setzero_si512();
  for (int t = 0; t < GROUP; ++t) {
    lanes = _mm512_add_epi16(lanes, _mm512_maddubs_epi16(_mm512_set1_epi32(load_int32(a + input(entry + t))),
                                                         _mm512_loadu_si512(b + t * kQuadEntry)));
  }
  sums.all = _mm512_add_epi32(sums.all, _mm512_madd_epi16(lanes, _mm512_set1_epi16(1)));
}

#else

template <int GROUP, typename Inputs>
inline void add_group(Sums& sums, const uint8_t* a, const Inputs& input, int64_t entry, const int8_t* b) {
  const auto codes = [&](int64_t at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + at)); };
  __m256i x = _mm256_set1_epi32(load_int32(a + input(entry)));
  __m256i left = _mm256_maddubs_epi16(x, codes(0));
  __m256i right = _mm256_maddubs_epi16(x, codes(32));
  for (int t = 1; t < GROUP; ++t) {
    x = _mm256_set1_epi32(load_int32(a + input(entry + t)));
    left = _mm256_add_epi16(left, _mm256_maddubs_epi16(x, codes(t * kQuadEntry)));
    right = _mm256_add_epi16(right, _mm256_maddubs_epi16(x, codes(t * kQuadEntry + 32)));
  }
  const __m256i ones = _mm256_set1_epi16(1);
  sums.left = _mm256_add_epi32(sums.left, _mm256_madd_epi16(left, ones));
  sums.right = _mm256_add_epi32(sums.right, _mm256_madd_epi16(right, ones));
}

#endif

#endif

}  // namespace
}  // namespace qeval::quant
