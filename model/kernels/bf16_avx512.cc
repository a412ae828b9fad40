#include <immintrin.h>

#include "model/kernels/bf16_impl.h"

namespace qeval::model {
namespace {

struct Avx512Bf16 {
  using Sums = __m512;
  using Words = __m512i;

  static Sums zero() { return _mm512_setzero_ps(); }
  static Sums load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Sums sums) { _mm512_storeu_ps(to, sums); }
  static Words load_words(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static Words broadcast_word(uint32_t word) { return _mm512_set1_epi32(static_cast<int32_t>(word)); }
  static Sums dot(Sums sums, Words a, Words b) {
    return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

/// Words of 16 pairs from x on, of which `floats` are there.
__m512i narrow_words(const float* x, int64_t floats) {
  const auto some = [&](int64_t from) {
    const int64_t count = floats - from;
    const auto mask = static_cast<__mmask16>(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
    return _mm512_maskz_loadu_ps(mask, x + from);
  };
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(some(16), some(0)));
}

/// Sixteen vectors of sixteen words: what was row r becomes column r.
void transpose(__m512i (&x)[16]) {
  __m512i y[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  // Every vector has words j, j + 4, j + 8, j + 12 of four rows, a lane each.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i low = _mm512_shuffle_i32x4(x[j], x[j + 4], 0x88);
    const __m512i high = _mm512_shuffle_i32x4(x[j], x[j + 4], 0xDD);
    const __m512i low2 = _mm512_shuffle_i32x4(x[j + 8], x[j + 12], 0x88);
    const __m512i high2 = _mm512_shuffle_i32x4(x[j + 8], x[j + 12], 0xDD);
    y[j] = _mm512_shuffle_i32x4(low, low2, 0x88);
    y[j + 8] = _mm512_shuffle_i32x4(low, low2, 0xDD);
    y[j + 4] = _mm512_shuffle_i32x4(high, high2, 0x88);
    y[j + 12] = _mm512_shuffle_i32x4(high, high2, 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

}  // namespace

void narrow_bf16_avx512(const float* x, int64_t n, uint16_t* out) {
  const int64_t padded = n + n % 2;
  for (int64_t i = 0; i < padded; i += 32) {
    const int64_t count = padded - i;
    const auto mask = static_cast<__mmask16>(count >= 32 ? 0xFFFF : (1 << (count / 2)) - 1);
    _mm512_mask_storeu_epi32(out + i, mask, narrow_words(x + i, n - i));
  }
}

void pack_bf16_avx512(const float* rows, int64_t count, int64_t k, uint32_t* panel) {
  const int64_t pairs = (k + 1) / 2;
  for (int64_t p = 0; p < pairs; p += 16) {
    __m512i words[16];
    for (int64_t r = 0; r < 16; ++r)
      words[r] = r < count ? narrow_words(rows + r * k + 2 * p, k - 2 * p) : _mm512_setzero_si512();
    transpose(words);
    for (int64_t i = 0; i < 16 && p + i < pairs; ++i)
      _mm512_storeu_si512(panel + (p + i) * kBf16Panel, words[i]);
  }
}

void bf16_gemm_avx512(const Bf16Gemm& g) {
  bf16_gemm<Avx512Bf16>(g);
}

}  // namespace qeval::model
