// Compiled for AVX2, F16C and FMA; the AVX-512 path runs it, too, for what row_dots_avx512.cc leaves. No
// standard library call below, for the reason given in kernels_impl.h.
#include <immintrin.h>

#include "model/kernels/cpu.h"
#include "model/kernels/row_dots_impl.h"

namespace qeval::model {
namespace {

/// Numbers of one type: eight rows of them turned so that a vector holds a column, in the order of columns.
struct F32Rows {
  using Number = float;
  static constexpr int64_t step = 8;
  static float widen(float x) { return x; }
  template <typename Use>
  static void columns(const float* const* rows, int64_t i, const Use& use) {
    __m256 r[8];
    for (int j = 0; j < 8; ++j) r[j] = _mm256_loadu_ps(rows[j] + i);
    turn(r, [&](int64_t j, __m256 column) { use(j, Vec{column}); });
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
  static Vec eight(__m128i x) { return {_mm256_cvtph_ps(x)}; }
};
struct WidenBf16 {
  static float one(uint16_t x) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(x << 16))); }
  static Vec eight(__m128i x) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16))};
  }
};

}  // namespace

void row_dots(const RowDots& d) {
  if (cpu_path() == CpuPath::avx512) {
    const int64_t done = row_dots_avx512(d);
    if (done == d.count) return;
    if (done > 0) {
      RowDots rest = d;
      rest.count -= done;
      rest.rows += done;
      rest.sums += done;
      row_dots(rest);
      return;
    }
  }
  row_dots_by_type<F32Rows, Rows16<WidenF16>, Rows16<WidenBf16>>(d);
}

}  // namespace qeval::model
