// Vectors of floats with AVX2 or AVX-512; simd.h says what each operation does.
#pragma once

#include <cstdint>

#include <immintrin.h>

namespace qeval::model {
namespace {

#if defined(__AVX512F__)

struct Vec {
  static constexpr int64_t width = 16;
  __m512 v;
};
inline Vec load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline void store(float* p, Vec x) {
  _mm512_storeu_ps(p, x.v);
}
inline Vec broadcast(float x) {
  return {_mm512_set1_ps(x)};
}
inline Vec operator+(Vec a, Vec b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline Vec operator/(Vec a, Vec b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline Vec max(Vec a, Vec b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline Vec min(Vec a, Vec b) {
  return {_mm512_min_ps(a.v, b.v)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec round_even(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// x where a = b, else 0.
inline Vec where_equal(Vec a, Vec b, Vec x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ), x.v)};
}
inline Vec power_of_two(Vec n) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}

using Codes = __m512i;
inline Codes widen_codes(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Codes all_codes(int32_t x) {
  return _mm512_set1_epi32(x);
}
inline Codes load_codes(const int32_t* p) {
  return _mm512_loadu_si512(p);
}
inline Vec difference(Codes a, Codes b) {
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(a, b))};
}
struct Table16 {
  __m512 values;
  explicit Table16(const float* table) : values(_mm512_loadu_ps(table)) {}
  Vec operator()(const uint8_t* p) const { return {_mm512_permutexvar_ps(widen_codes(p), values)}; }
};

#else

struct Vec {
  static constexpr int64_t width = 8;
  __m256 v;
};
inline Vec load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
inline void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x.v);
}
inline Vec broadcast(float x) {
  return {_mm256_set1_ps(x)};
}
inline Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.v, b.v)};
}
inline Vec max(Vec a, Vec b) {
  return {_mm256_max_ps(a.v, b.v)};
}
inline Vec min(Vec a, Vec b) {
  return {_mm256_min_ps(a.v, b.v)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec round_even(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec where_equal(Vec a, Vec b, Vec x) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ), x.v)};
}
inline Vec power_of_two(Vec n) {
  return {_mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23))};
}

using Codes = __m256i;
inline Codes widen_codes(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline Codes all_codes(int32_t x) {
  return _mm256_set1_epi32(x);
}
inline Codes load_codes(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Vec difference(Codes a, Codes b) {
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(a, b))};
}
struct Table16 {
  __m256 low, high;
  explicit Table16(const float* table) : low(_mm256_loadu_ps(table)), high(_mm256_loadu_ps(table + 8)) {}
  Vec operator()(const uint8_t* p) const {
    const __m256i codes = widen_codes(p);
    const __m256 of_high = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));  // bit 3 as the sign
    return {_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes),
                             of_high)};
  }
};

#endif

struct Table256 {
  const float* table;
  explicit Table256(const float* values) : table(values) {}
  // Loads one by one are faster than a gather.
  __m256 eight(const uint8_t* p) const {
    return _mm256_setr_ps(table[p[0]], table[p[1]], table[p[2]], table[p[3]], table[p[4]], table[p[5]],
                          table[p[6]], table[p[7]]);
  }
  Vec operator()(const uint8_t* p) const {
#if defined(__AVX512F__)
    return {_mm512_insertf32x8(_mm512_castps256_ps512(eight(p)), eight(p + 8), 1)};
#else
    return {eight(p)};
#endif
  }
};

inline float square_root(float x) {
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}

constexpr int64_t kSquare = 8;
/// Calls use(j, column j) of eight rows of eight.
template <typename Use>
inline void turn(__m256* r, const Use& use) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) use(i, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
  for (int i = 0; i < 4; ++i) use(i + 4, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
}
inline void transpose(const float* in, int64_t ld, float* out, int64_t ld_out) {
  __m256 r[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(in + i * ld);
  turn(r, [&](int64_t i, __m256 column) { _mm256_storeu_ps(out + i * ld_out, column); });
}

inline void widen_eight_f16(const uint16_t* x, float* y) {
  _mm256_storeu_ps(y, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
}

inline __m128i narrow_to_i16(const float* codes) {
  const __m256i wide = _mm256_cvtps_epi32(_mm256_loadu_ps(codes));
  return _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
}
inline void store_eight(const float* codes, int8_t* out) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out),
                   _mm_packs_epi16(narrow_to_i16(codes), _mm_setzero_si128()));
}
inline void store_eight(const float* codes, int16_t* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), narrow_to_i16(codes));
}
inline void scale_eight(__m256i codes, int32_t zero_point, float scale, float* y) {
  const __m256 from_zero = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(zero_point)));
  _mm256_storeu_ps(y, _mm256_mul_ps(from_zero, _mm256_set1_ps(scale)));
}
inline void scale_eight(const int8_t* codes, int32_t zero_point, float scale, float* y) {
  scale_eight(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes))), zero_point,
              scale, y);
}
inline void scale_eight(const int16_t* codes, int32_t zero_point, float scale, float* y) {
  scale_eight(_mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))), zero_point,
              scale, y);
}

}  // namespace
}  // namespace qeval::model
