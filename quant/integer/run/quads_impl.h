#pragma once

// Products of 8-bit codes in the layout of quads. Compiled once per CPU path; no floating point.

#include <cstdint>

#include "quant/integer/run/gemm_impl.h"

namespace qeval::quant {
namespace {

#ifdef __AVX2__

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

// 32-bit sums from the start: groups mean nothing here.
constexpr int64_t kQuadRows = kTileRows;
template <int GROUP>
inline void add_group(Sums& sums, const uint8_t* a, const int32_t* inputs, const int8_t* b) {
  for (int t = 0; t < GROUP; ++t) {
    add_quads(sums, load_int32(a + inputs[t]), load_quads(b + t * kQuadEntry));
  }
}

#elif defined(__AVX512BW__)

constexpr int64_t kQuadRows = 6;
template <int GROUP>
inline void add_group(Sums& sums, const uint8_t* a, const int32_t* inputs, const int8_t* b) {
  __m512i lanes = _mm512_setzero_si512();
  for (int t = 0; t < GROUP; ++t) {
    lanes = _mm512_add_epi16(lanes, _mm512_maddubs_epi16(_mm512_set1_epi32(load_int32(a + inputs[t])),
                                                         _mm512_loadu_si512(b + t * kQuadEntry)));
  }
  sums.all = _mm512_add_epi32(sums.all, _mm512_madd_epi16(lanes, _mm512_set1_epi16(1)));
}

#else

constexpr int64_t kQuadRows = 6;
template <int GROUP>
inline void add_group(Sums& sums, const uint8_t* a, const int32_t* inputs, const int8_t* b) {
  const auto codes = [&](int64_t at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + at)); };
  __m256i x = _mm256_set1_epi32(load_int32(a + inputs[0]));
  __m256i left = _mm256_maddubs_epi16(x, codes(0));
  __m256i right = _mm256_maddubs_epi16(x, codes(32));
  for (int t = 1; t < GROUP; ++t) {
    x = _mm256_set1_epi32(load_int32(a + inputs[t]));
    left = _mm256_add_epi16(left, _mm256_maddubs_epi16(x, codes(t * kQuadEntry)));
    right = _mm256_add_epi16(right, _mm256_maddubs_epi16(x, codes(t * kQuadEntry + 32)));
  }
  const __m256i ones = _mm256_set1_epi16(1);
  sums.left = _mm256_add_epi32(sums.left, _mm256_madd_epi16(left, ones));
  sums.right = _mm256_add_epi32(sums.right, _mm256_madd_epi16(right, ones));
}

#endif

template <int GROUP>
struct GroupProduct {
  template <size_t... ROW>
  static void run(std::index_sequence<ROW...>, const QuadGemm& g, const uint8_t* a, const int8_t* b,
                  int32_t* c) {
    static constexpr int32_t kNothing[kPanel] = {};
    Sums sums[] = {load_sums(g.accumulate ? c + static_cast<int64_t>(ROW) * g.ldc : kNothing)...};
    const uint8_t* rows[] = {(a + static_cast<int64_t>(ROW) * g.lda)...};
    for (int64_t e = 0; e < g.entries; e += GROUP) {
      (add_group<GROUP>(sums[ROW], rows[ROW], g.inputs + e, b + e * kQuadEntry), ...);
    }
    (store_sums(c + static_cast<int64_t>(ROW) * g.ldc, sums[ROW]), ...);
  }
  template <int ROWS>
  static void run(const QuadGemm* g, const uint8_t* a, const int8_t* b, int32_t* c) {
    run(std::make_index_sequence<ROWS>(), *g, a, b, c);
  }
};

template <int GROUP, int64_t ROWS>
void gemm_groups(const QuadGemm& g) {
  for (int64_t p = 0; p < g.panels; ++p) {
    for (int64_t i = 0; i < g.m; i += ROWS) {
      with_rows<GroupProduct<GROUP>, ROWS>(std::min(ROWS, g.m - i), &g, g.a + i * g.lda,
                                           g.b + p * g.entries * kQuadEntry, g.c + i * g.ldc + p * kPanel);
    }
  }
}

void gemm_quads(const QuadGemm& g) {
  switch (g.group) {
    case 4:
      return gemm_groups<4, kQuadRows>(g);
    case 2:
      // Fewer rows: the group's four registers of B stay, too.
      return gemm_groups < 2, kQuadRows == 6 ? 4 : kQuadRows > (g);
    default:
      return gemm_groups < 1, kQuadRows == 6 ? 4 : kQuadRows > (g);
  }
}

#else

void gemm_quads(const QuadGemm& g) {
  for (int64_t p = 0; p < g.panels; ++p) {
    for (int64_t i = 0; i < g.m; ++i) {
      int32_t* c = g.c + i * g.ldc + p * kPanel;
      int32_t sums[kPanel] = {};
      if (g.accumulate) std::memcpy(sums, c, sizeof(sums));
      for (int64_t e = 0; e < g.entries; ++e) {
        const uint8_t* a = g.a + i * g.lda + g.inputs[e];
        const int8_t* b = g.b + (p * g.entries + e) * kQuadEntry;
        for (int64_t j = 0; j < kPanel; ++j) {
          for (int64_t t = 0; t < 4; ++t) sums[j] += a[t] * b[4 * j + t];
        }
      }
      std::memcpy(c, sums, sizeof(sums));
    }
  }
}

#endif

}  // namespace
}  // namespace qeval::quant
