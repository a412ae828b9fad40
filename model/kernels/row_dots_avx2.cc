// Compiled for AVX2, F16C and FMA; the AVX-512 path runs it, too: it waits for memory, not for the width of a
// register. No standard library call below, for the reason given in kernels_impl.h.
#include <immintrin.h>

#include "model/kernels/row_dots.h"

namespace qeval::model {
namespace {

/// Numbers of one type: eight rows of them turned so that a vector holds a column, in the order of columns.
struct F32Rows {
  using Number = float;
  static constexpr int64_t step = 8;
  static float widen(float x) { return x; }
  template <typename Use>
  static void columns(const float* const* rows, int64_t i, const Use& use) {
    __m256 r[8], t[8];
    for (int j = 0; j < 8; ++j) r[j] = _mm256_loadu_ps(rows[j] + i);
    for (int j = 0; j < 8; j += 2) {
      t[j] = _mm256_unpacklo_ps(r[j], r[j + 1]);
      t[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
    }
    for (int j = 0; j < 8; j += 4) {
      r[j] = _mm256_shuffle_ps(t[j], t[j + 2], 0x44);
      r[j + 1] = _mm256_shuffle_ps(t[j], t[j + 2], 0xEE);
      r[j + 2] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0x44);
      r[j + 3] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0xEE);
    }
    for (int j = 0; j < 4; ++j) use(j, _mm256_permute2f128_ps(r[j], r[j + 4], 0x20));
    for (int j = 0; j < 4; ++j) use(j + 4, _mm256_permute2f128_ps(r[j], r[j + 4], 0x31));
  }
};

/// The same for numbers of 16 bits, sixteen columns at a time: the halves of the registers are turned each by
/// itself, the first eight columns in the lower ones.
template <typename Widen>
struct Rows16 {
  using Number = uint16_t;
  static constexpr int64_t step = 16;
  static float widen(uint16_t x) { return Widen::one(x); }
  template <typename Use>
  static void columns(const uint16_t* const* rows, int64_t i, const Use& use) {
    __m256i r[8], t[8];
    for (int j = 0; j < 8; ++j) r[j] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[j] + i));
    for (int j = 0; j < 4; ++j) {
      t[j] = _mm256_unpacklo_epi16(r[2 * j], r[2 * j + 1]);
      t[j + 4] = _mm256_unpackhi_epi16(r[2 * j], r[2 * j + 1]);
    }
    for (int j = 0; j < 8; j += 4) {
      r[j] = _mm256_unpacklo_epi32(t[j], t[j + 1]);
      r[j + 1] = _mm256_unpackhi_epi32(t[j], t[j + 1]);
      r[j + 2] = _mm256_unpacklo_epi32(t[j + 2], t[j + 3]);
      r[j + 3] = _mm256_unpackhi_epi32(t[j + 2], t[j + 3]);
    }
    for (int j = 0; j < 8; j += 4) {
      t[j] = _mm256_unpacklo_epi64(r[j], r[j + 2]);
      t[j + 1] = _mm256_unpackhi_epi64(r[j], r[j + 2]);
      t[j + 2] = _mm256_unpacklo_epi64(r[j + 1], r[j + 3]);
      t[j + 3] = _mm256_unpackhi_epi64(r[j + 1], r[j + 3]);
    }
    for (int j = 0; j < 8; ++j) use(j, Widen::eight(_mm256_castsi256_si128(t[j])));
    for (int j = 0; j < 8; ++j) use(j + 8, Widen::eight(_mm256_extracti128_si256(t[j], 1)));
  }
};
struct WidenF16 {
  static float one(uint16_t x) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x))); }
  static __m256 eight(__m128i x) { return _mm256_cvtph_ps(x); }
};
struct WidenBf16 {
  static float one(uint16_t x) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(x << 16))); }
  static __m256 eight(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
};

/// `groups` times eight rows side by side: their chains are independent, so that they hide each other's
/// latency.
template <typename Rows, int groups>
inline void row_dots_side_by_side(const RowDots& d, int64_t first) {
  using Number = typename Rows::Number;
  const Number* rows[8 * groups];
  for (int j = 0; j < 8 * groups; ++j) rows[j] = static_cast<const Number*>(d.rows[first + j]);
  __m256 sums[groups];
  for (int g = 0; g < groups; ++g) sums[g] = _mm256_loadu_ps(d.sums + first + 8 * g);
  int64_t i = 0;
  constexpr int64_t kLine = 64 / sizeof(Number);
  for (; i + Rows::step <= d.k; i += Rows::step) {
    // So many rows side by side are no pattern that a processor foresees.
    if (i % kLine == 0) {
      for (int j = 0; j < 8 * groups; ++j)
        _mm_prefetch(reinterpret_cast<const char*>(rows[j] + i) + d.ahead, _MM_HINT_T0);
    }
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      Rows::columns(rows + 8 * g, i, [&](int64_t j, __m256 column) {
        sums[g] = _mm256_fmadd_ps(_mm256_broadcast_ss(d.x + i + j), column, sums[g]);
      });
    }
  }
  for (; i < d.k; ++i) {
    for (int g = 0; g < groups; ++g) {
      float column[8];
      for (int j = 0; j < 8; ++j) column[j] = Rows::widen(rows[8 * g + j][i]);
      sums[g] = _mm256_fmadd_ps(_mm256_broadcast_ss(d.x + i), _mm256_loadu_ps(column), sums[g]);
    }
  }
  for (int g = 0; g < groups; ++g) _mm256_storeu_ps(d.sums + first + 8 * g, sums[g]);
}

template <typename Rows>
inline void row_dots_of(const RowDots& d) {
  int64_t row = 0;
  for (; row + 32 <= d.count; row += 32) row_dots_side_by_side<Rows, 4>(d, row);
  for (; row < d.count; row += kRowDots) row_dots_side_by_side<Rows, 1>(d, row);
}

}  // namespace

bool reads_rows_of(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || block_row_dots(type) != nullptr;
}

void row_dots(const RowDots& d) {
  switch (d.type) {
    case DType::f32:
      return row_dots_of<F32Rows>(d);
    case DType::f16:
      return row_dots_of<Rows16<WidenF16>>(d);
    case DType::bf16:
      return row_dots_of<Rows16<WidenBf16>>(d);
    default:
      return block_row_dots(d.type)(d);
  }
}

}  // namespace qeval::model
