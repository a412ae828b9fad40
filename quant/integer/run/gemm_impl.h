#pragma once

// Integer matrix products. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "base/parallel.h"
#include "quant/integer/run/kernels.h"

namespace qeval::quant {
namespace {

// Products of an int16_t and an int8_t that an int32_t lane can add up in pairs: 255 · 2 · 2^22 < 2^31.
constexpr int64_t kWideChunk = 480;

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

#else

constexpr int64_t kTileRows = 4;

#endif

#ifdef __AVX2__

inline int32_t load_int32(const void* from) {
  int32_t x = 0;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

/// c [ROWS, kPanel] (+)= A [ROWS, k] · one panel, modulo 2^32. Rows are a pack rather than a loop: indices
/// that are known before the compiler places the sums keep these in registers.
template <size_t... ROW>
void panel_product(std::index_sequence<ROW...>, const int16_t* a, int64_t lda, const int8_t* b, int64_t k,
                   int32_t* c, int64_t ldc, bool accumulate) {
  static constexpr int32_t kNothing[kPanel] = {};
  Sums sums[] = {load_sums(accumulate ? c + static_cast<int64_t>(ROW) * ldc : kNothing)...};
  const int16_t* rows[] = {(a + static_cast<int64_t>(ROW) * lda)...};
  for (int64_t i = 0; i + 1 < k; i += 2) {
    const Sums codes = load_pairs(b + i * kPanel);
    (add_pairs(sums[ROW], load_int32(rows[ROW] + i), codes), ...);
  }
  (store_sums(c + static_cast<int64_t>(ROW) * ldc, sums[ROW]), ...);
}

template <int ROWS>
void panel_product(const int16_t* a, int64_t lda, const int8_t* b, int64_t k, int32_t* c, int64_t ldc,
                   bool accumulate) {
  panel_product(std::make_index_sequence<ROWS>(), a, lda, b, k, c, ldc, accumulate);
  if (k % 2 == 0) return;
  // The last pair has one input only. Apart, so that it costs the loop above no registers.
  const Sums codes = load_pairs(b + (k - 1) * kPanel);
  for (int r = 0; r < ROWS; ++r) {
    Sums sums = load_sums(c + r * ldc);
    add_pairs(sums, static_cast<uint16_t>(a[r * lda + k - 1]), codes);
    store_sums(c + r * ldc, sums);
  }
}

#else

template <int ROWS>
void panel_product(const int16_t* a, int64_t lda, const int8_t* b, int64_t k, int32_t* c, int64_t ldc,
                   bool accumulate) {
  for (int r = 0; r < ROWS; ++r) {
    uint32_t row[kPanel] = {};
    if (accumulate) std::memcpy(row, c + r * ldc, sizeof(row));
    const int16_t* x = a + r * lda;
    for (int64_t i = 0; i < k; i += 2) {
      const int32_t first = x[i];
      const int32_t second = i + 1 < k ? x[i + 1] : 0;
      const int8_t* codes = b + i * kPanel;
      for (int64_t j = 0; j < kPanel; ++j) {
        row[j] += static_cast<uint32_t>(first * codes[2 * j] + second * codes[2 * j + 1]);
      }
    }
    std::memcpy(c + r * ldc, row, sizeof(row));
  }
}

#endif

/// Calls Product::run<rows>(…) with the number of rows as a constant.
template <typename Product, int64_t ROWS = kTileRows, typename... Arguments>
void with_rows(int64_t rows, Arguments... arguments) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return with_rows<Product, ROWS - 1>(rows, arguments...);
  }
  Product::template run<ROWS>(arguments...);
}

struct PairProduct {
  template <int ROWS>
  static void run(const int16_t* a, int64_t lda, const int8_t* b, int64_t k, int32_t* c, int64_t ldc,
                  bool accumulate) {
    panel_product<ROWS>(a, lda, b, k, c, ldc, accumulate);
  }
};

/// Runs `product(rows, target, ldc, accumulate)` on C where all the panel's columns are there, else on the
/// side.
template <typename Product>
void into(int32_t* c, int64_t ldc, int64_t rows, int64_t columns, bool accumulate, const Product& product) {
  if (columns == kPanel) return product(c, ldc, accumulate);
  alignas(64) int32_t aside[kTileRows * kPanel];
  product(aside, kPanel, false);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < columns; ++j) {
      const auto sum = static_cast<uint32_t>(aside[r * kPanel + j]);
      int32_t& target = c[r * ldc + j];
      target = static_cast<int32_t>((accumulate ? static_cast<uint32_t>(target) : 0U) + sum);
    }
  }
}

void gemm_modular(const IntegerGemm& g) {
  for (int64_t j = 0; j < g.n; j += kPanel) {
    const int8_t* panel = static_cast<const int8_t*>(g.b) + j / kPanel * g.panel_stride;
    for (int64_t i = 0; i < g.m; i += kTileRows) {
      const int64_t rows = std::min(kTileRows, g.m - i);
      into(static_cast<int32_t*>(g.c) + i * g.ldc + j, g.ldc, rows, std::min(kPanel, g.n - j), g.accumulate,
           [&](int32_t* c, int64_t ldc, bool accumulate) {
             with_rows<PairProduct>(rows, g.a + i * g.lda, g.lda, panel, g.k, c, ldc, accumulate);
           });
    }
  }
}

void gemm_wide(const IntegerGemm& g) {
  alignas(64) int32_t sums[kTileRows * kPanel];
  for (int64_t j = 0; j < g.n; j += kPanel) {
    const int8_t* panel = static_cast<const int8_t*>(g.b) + j / kPanel * g.panel_stride;
    const int64_t columns = std::min(kPanel, g.n - j);
    for (int64_t i = 0; i < g.m; i += kTileRows) {
      const int64_t rows = std::min(kTileRows, g.m - i);
      for (int64_t k = 0; k < g.k; k += kWideChunk) {
        with_rows<PairProduct>(rows, g.a + i * g.lda + k, g.lda, panel + k * kPanel,
                               std::min(kWideChunk, g.k - k), sums, kPanel, false);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < columns; ++c) {
            int64_t& target = static_cast<int64_t*>(g.c)[(i + r) * g.ldc + j + c];
            target = (g.accumulate || k > 0 ? target : 0) + sums[r * kPanel + c];
          }
        }
      }
    }
  }
}

void gemm_wide16(const IntegerGemm& g) {
  for (int64_t j = 0; j < g.n; j += kPanel) {
    const int16_t* panel = static_cast<const int16_t*>(g.b) + j / kPanel * g.panel_stride;
    const int64_t columns = std::min(kPanel, g.n - j);
    for (int64_t i = 0; i < g.m; ++i) {
      const int16_t* a = g.a + i * g.lda;
      int64_t sums[kPanel] = {};
      for (int64_t k = 0; k < g.k; ++k) {
        const int16_t* b = panel + k / 2 * 2 * kPanel + k % 2;
        // A product of two int16_t fits int32_t.
        for (int64_t c = 0; c < kPanel; ++c) sums[c] += static_cast<int32_t>(a[k]) * b[2 * c];
      }
      int64_t* out = static_cast<int64_t*>(g.c) + i * g.ldc + j;
      for (int64_t c = 0; c < columns; ++c) out[c] = (g.accumulate ? out[c] : 0) + sums[c];
    }
  }
}

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

// vpdpbusd multiplies four 8-bit codes a lane: A as bytes, B as quads [k / 4, kPanel, 4]. It adds up in 32
// bits without saturating on the way (vpdpbusds would).

inline Sums load_quads(const int8_t* b) {
#ifdef __AVX512VNNI__
  return {_mm512_loadu_si512(b)};
#else
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32))};
#endif
}
inline void add_quads(Sums& sums, int32_t quad, const Sums& codes) {
#ifdef __AVX512VNNI__
  sums.all = _mm512_dpbusd_epi32(sums.all, _mm512_set1_epi32(quad), codes.all);
#else
  sums.left = _mm256_dpbusd_avx_epi32(sums.left, _mm256_set1_epi32(quad), codes.left);
  sums.right = _mm256_dpbusd_avx_epi32(sums.right, _mm256_set1_epi32(quad), codes.right);
#endif
}

struct QuadProduct {
  template <size_t... ROW>
  static void run(std::index_sequence<ROW...>, const uint8_t* a, int64_t lda, const int8_t* b, int64_t quads,
                  int32_t* c, int64_t ldc, bool accumulate) {
    static constexpr int32_t kNothing[kPanel] = {};
    Sums sums[] = {load_sums(accumulate ? c + static_cast<int64_t>(ROW) * ldc : kNothing)...};
    const uint8_t* rows[] = {(a + static_cast<int64_t>(ROW) * lda)...};
    for (int64_t i = 0; i < quads; ++i) {
      const Sums codes = load_quads(b + i * 4 * kPanel);
      (add_quads(sums[ROW], load_int32(rows[ROW] + 4 * i), codes), ...);
    }
    (store_sums(c + static_cast<int64_t>(ROW) * ldc, sums[ROW]), ...);
  }
  template <int ROWS>
  static void run(const uint8_t* a, int64_t lda, const int8_t* b, int64_t quads, int32_t* c, int64_t ldc,
                  bool accumulate) {
    run(std::make_index_sequence<ROWS>(), a, lda, b, quads, c, ldc, accumulate);
  }
};

/// A panel's pairs [pairs, kPanel, 2] as quads; a missing last pair is zero.
void pairs_to_quads(const int8_t* panel, int64_t pairs, int8_t* out) {
  for (int64_t p = 0; p < pairs; p += 2) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + p * 2 * kPanel));
    const __m256i second =
        p + 1 < pairs ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + (p + 1) * 2 * kPanel))
                      : _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi16(first, second);
    const __m256i high = _mm256_unpackhi_epi16(first, second);
    auto* to = reinterpret_cast<__m256i*>(out + p * 2 * kPanel);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
  }
}

void gemm_narrow(const IntegerGemm& g) {
  // Laying out anew pays for itself over some rows.
  if (g.m < 8) return gemm_modular(g);
  thread_local AlignedBuffer bytes;
  thread_local AlignedBuffer quad_panel;
  const int64_t quads = (g.k + 3) / 4;
  const int64_t lda = 4 * quads;
  bytes.resize(static_cast<size_t>(g.m * lda));
  quad_panel.resize(static_cast<size_t>(lda * kPanel));
  auto* a = bytes.as<uint8_t>();
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t t = 0; t < g.k; ++t) a[i * lda + t] = static_cast<uint8_t>(g.a[i * g.lda + t]);
    // Zeros, against which the other half of an odd last pair counts nothing.
    std::fill(a + i * lda + g.k, a + (i + 1) * lda, uint8_t{0});
  }
  for (int64_t j = 0; j < g.n; j += kPanel) {
    pairs_to_quads(static_cast<const int8_t*>(g.b) + j / kPanel * g.panel_stride, (g.k + 1) / 2,
                   quad_panel.as<int8_t>());
    for (int64_t i = 0; i < g.m; i += kTileRows) {
      const int64_t rows = std::min(kTileRows, g.m - i);
      into(static_cast<int32_t*>(g.c) + i * g.ldc + j, g.ldc, rows, std::min(kPanel, g.n - j), g.accumulate,
           [&](int32_t* c, int64_t ldc, bool accumulate) {
             with_rows<QuadProduct>(rows, static_cast<const uint8_t*>(a + i * lda), lda,
                                    static_cast<const int8_t*>(quad_panel.as<int8_t>()), quads, c, ldc,
                                    accumulate);
           });
    }
  }
}

#else

void gemm_narrow(const IntegerGemm& g) {
  gemm_modular(g);
}

#endif

}  // namespace
}  // namespace qeval::quant
