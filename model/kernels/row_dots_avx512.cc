// Row dots of 16-bit floats in registers of 512 bits: fewer instructions turn sixteen rows than twice eight.
// Other types wait for memory, or for other things than registers. No standard library call below, for the
// reason given in kernels_impl.h.
#include <immintrin.h>

#include "model/kernels/row_dots.h"

namespace qeval::model {
namespace {

struct F16Wide {
  static __m512 sixteen(__m256i x) { return _mm512_cvtph_ps(x); }
};
struct Bf16Wide {
  static __m512 sixteen(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
};

/// Calls use(j, column i + j of sixteen rows) for j = 0 … 15.
template <typename Wide, typename Use>
inline void columns(const uint16_t* const* rows, int64_t i, const Use& use) {
  const auto load = [](const uint16_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  };
  __m512i r[8], t[8];
  for (int j = 0; j < 8; ++j) {
    r[j] = _mm512_inserti64x4(_mm512_castsi256_si512(load(rows[j] + i)), load(rows[j + 8] + i), 1);
  }
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm512_unpacklo_epi16(r[2 * j], r[2 * j + 1]);
    t[j + 4] = _mm512_unpackhi_epi16(r[2 * j], r[2 * j + 1]);
  }
  for (int j = 0; j < 8; j += 4) {
    r[j] = _mm512_unpacklo_epi32(t[j], t[j + 1]);
    r[j + 1] = _mm512_unpackhi_epi32(t[j], t[j + 1]);
    r[j + 2] = _mm512_unpacklo_epi32(t[j + 2], t[j + 3]);
    r[j + 3] = _mm512_unpackhi_epi32(t[j + 2], t[j + 3]);
  }
  // A quarter has eight rows of a column: the first eight columns to the lower half, both quarters of one
  // side by side.
  const __m512i even = _mm512_setr_epi64(0, 8, 4, 12, 2, 10, 6, 14);
  const __m512i odd = _mm512_setr_epi64(1, 9, 5, 13, 3, 11, 7, 15);
  for (int j = 0; j < 8; j += 4) {
    t[j] = _mm512_permutex2var_epi64(r[j], even, r[j + 2]);
    t[j + 1] = _mm512_permutex2var_epi64(r[j], odd, r[j + 2]);
    t[j + 2] = _mm512_permutex2var_epi64(r[j + 1], even, r[j + 3]);
    t[j + 3] = _mm512_permutex2var_epi64(r[j + 1], odd, r[j + 3]);
  }
  for (int j = 0; j < 8; ++j) use(j, Wide::sixteen(_mm512_castsi512_si256(t[j])));
  for (int j = 0; j < 8; ++j) use(j + 8, Wide::sixteen(_mm512_extracti64x4_epi64(t[j], 1)));
}

/// Rows [first, first + 32), two chains side by side.
template <typename Wide>
inline void thirty_two(const RowDots& d, int64_t first) {
  const uint16_t* rows[32];
  for (int j = 0; j < 32; ++j) rows[j] = static_cast<const uint16_t*>(d.rows[first + j]);
  __m512 sums[2] = {_mm512_loadu_ps(d.sums + first), _mm512_loadu_ps(d.sums + first + 16)};
  for (int64_t i = 0; i < d.k; i += 16) {
    if (i % 32 == 0) {
      for (const uint16_t* row : rows)
        __builtin_prefetch(reinterpret_cast<const char*>(row + i) + d.ahead, 0, 2);
    }
#pragma GCC unroll 2
    for (int g = 0; g < 2; ++g) {
      columns<Wide>(rows + 16 * g, i, [&](int64_t j, __m512 column) {
        sums[g] = _mm512_fmadd_ps(_mm512_set1_ps(d.x[i + j]), column, sums[g]);
      });
    }
  }
  _mm512_storeu_ps(d.sums + first, sums[0]);
  _mm512_storeu_ps(d.sums + first + 16, sums[1]);
}

template <typename Wide>
inline int64_t whole_groups(const RowDots& d) {
  int64_t row = 0;
  for (; row + 32 <= d.count; row += 32) thirty_two<Wide>(d, row);
  return row;
}

}  // namespace

int64_t row_dots_avx512(const RowDots& d) {
  if (d.k % 16 != 0) return 0;
  if (d.type == DType::f16) return whole_groups<F16Wide>(d);
  if (d.type == DType::bf16) return whole_groups<Bf16Wide>(d);
  return 0;
}

}  // namespace qeval::model
