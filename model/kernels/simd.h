// A vector of floats for the CPU path that the including translation unit is compiled for. Included by the
// kernels_*.cc files only. Everything is in an anonymous namespace: code compiled for a newer instruction set
// must never be merged by the linker with the same function elsewhere.
#pragma once

#include <cstdint>
#include <cstring>

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

#elif defined(__AVX2__)

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

#else

struct Vec {
  static constexpr int64_t width = 4;
  __m128 v;
};
inline Vec load(const float* p) {
  return {_mm_loadu_ps(p)};
}
inline void store(float* p, Vec x) {
  _mm_storeu_ps(p, x.v);
}
inline Vec broadcast(float x) {
  return {_mm_set1_ps(x)};
}
inline Vec operator+(Vec a, Vec b) {
  return {_mm_add_ps(a.v, b.v)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm_sub_ps(a.v, b.v)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm_mul_ps(a.v, b.v)};
}
inline Vec operator/(Vec a, Vec b) {
  return {_mm_div_ps(a.v, b.v)};
}
inline Vec max(Vec a, Vec b) {
  return {_mm_max_ps(a.v, b.v)};
}
inline Vec min(Vec a, Vec b) {
  return {_mm_min_ps(a.v, b.v)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm_add_ps(_mm_mul_ps(a.v, b.v), c.v)};
}
inline Vec round_even(Vec a) {
  return {_mm_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec where_equal(Vec a, Vec b, Vec x) {
  return {_mm_and_ps(_mm_cmpeq_ps(a.v, b.v), x.v)};
}
inline Vec power_of_two(Vec n) {
  return {_mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(_mm_cvtps_epi32(n.v), _mm_set1_epi32(127)), 23))};
}

#endif

/// The first `count` < width elements; the others are `fill`.
inline Vec load_partial(const float* p, int64_t count, float fill) {
  float lanes[Vec::width];
  for (int64_t i = 0; i < Vec::width; ++i) lanes[i] = i < count ? p[i] : fill;
  return load(lanes);
}

inline void store_partial(float* p, int64_t count, Vec x) {
  float lanes[Vec::width];
  store(lanes, x);
  std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
}

/// Pairwise, always in the same order.
inline float horizontal_sum(Vec x) {
  float lanes[Vec::width];
  store(lanes, x);
  for (int64_t half = Vec::width / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

inline float horizontal_max(Vec x) {
  float lanes[Vec::width];
  store(lanes, x);
  float largest = lanes[0];
  for (int64_t i = 1; i < Vec::width; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

/// exp(x) to about 1 ulp, on [−87, 88]; smaller arguments give exp(−87) ≈ 1.6e-38, larger ones exp(88), NaN
/// gives NaN.
/// x = n·ln 2 + r, |r| ≤ ln 2 / 2; a Taylor polynomial of degree 7 for exp(r); ln 2 in two parts (Cody and
/// Waite).
inline Vec exp(Vec x) {
  x = min(broadcast(88.0F), max(broadcast(-87.0F), x));  // x second: min and max then hand on a NaN
  const Vec n = round_even(x * broadcast(1.44269504088896341F));
  Vec r = fma(n, broadcast(-0.693359375F), x);
  r = fma(n, broadcast(2.12194440e-4F), r);
  Vec p = broadcast(1.0F / 5040);
  p = fma(p, r, broadcast(1.0F / 720));
  p = fma(p, r, broadcast(1.0F / 120));
  p = fma(p, r, broadcast(1.0F / 24));
  p = fma(p, r, broadcast(1.0F / 6));
  p = fma(p, r, broadcast(0.5F));
  p = fma(p, r, broadcast(1.0F));
  p = fma(p, r, broadcast(1.0F));
  return p * power_of_two(n);
}

}  // namespace
}  // namespace qeval::model
