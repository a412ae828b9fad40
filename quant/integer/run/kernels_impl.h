#pragma once

// Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "quant/integer/integer_model.h"
#include "quant/integer/run/kernels.h"

namespace qeval::quant {
namespace {

// Products of an int16_t and an int8_t that an int32_t lane can add up in pairs: 255 · 2 · 2^22 < 2^31.
constexpr int64_t kWideChunk = 480;
constexpr int64_t kTileRows = 6;

/// The last, half-filled pair of a row: its second input counts as 0.
inline int32_t pair_at(const int16_t* a, int64_t i, int64_t k) {
  uint16_t first = 0;
  uint16_t second = 0;
  std::memcpy(&first, a + i, sizeof(first));
  if (i + 1 < k) std::memcpy(&second, a + i + 1, sizeof(second));
  return static_cast<int32_t>(static_cast<uint32_t>(second) << 16 | first);
}

#ifdef __AVX2__

/// Eight columns' pairs as 16-bit numbers.
inline __m256i load_pairs(const int8_t* b) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
}

/// sums [ROWS, kPanel] = A [ROWS, k] · one panel, over at most kWideChunk inputs where A is wide.
template <int ROWS>
void panel_product(const int16_t* a, int64_t lda, const int8_t* b, int64_t k, int32_t* sums) {
  __m256i left[ROWS];
  __m256i right[ROWS];
  for (int r = 0; r < ROWS; ++r) left[r] = right[r] = _mm256_setzero_si256();
  const auto step = [&](int64_t i, auto pair) {
    const __m256i b0 = load_pairs(b + i * kPanel);
    const __m256i b1 = load_pairs(b + i * kPanel + 16);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r) {
      const __m256i x = _mm256_set1_epi32(pair(a + r * lda, i));
      left[r] = _mm256_add_epi32(left[r], _mm256_madd_epi16(x, b0));
      right[r] = _mm256_add_epi32(right[r], _mm256_madd_epi16(x, b1));
    }
  };
  const int64_t whole = k / 2 * 2;
  for (int64_t i = 0; i < whole; i += 2) {
    step(i, [](const int16_t* row, int64_t at) {
      int32_t pair = 0;
      std::memcpy(&pair, row + at, sizeof(pair));
      return pair;
    });
  }
  if (whole < k) step(whole, [&](const int16_t* row, int64_t at) { return pair_at(row, at, k); });
  for (int r = 0; r < ROWS; ++r) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * kPanel), left[r]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * kPanel + 8), right[r]);
  }
}

#else

template <int ROWS>
void panel_product(const int16_t* a, int64_t lda, const int8_t* b, int64_t k, int32_t* sums) {
  for (int r = 0; r < ROWS; ++r) {
    int32_t row[kPanel] = {};
    const int16_t* x = a + r * lda;
    for (int64_t i = 0; i < k; i += 2) {
      const int32_t first = x[i];
      const int32_t second = i + 1 < k ? x[i + 1] : 0;
      const int8_t* codes = b + i * kPanel;
      for (int64_t j = 0; j < kPanel; ++j) row[j] += first * codes[2 * j] + second * codes[2 * j + 1];
    }
    std::memcpy(sums + r * kPanel, row, sizeof(row));
  }
}

#endif

void panel_rows(int64_t rows, const int16_t* a, int64_t lda, const int8_t* b, int64_t k, int32_t* sums) {
  switch (rows) {
    case 1:
      return panel_product<1>(a, lda, b, k, sums);
    case 2:
      return panel_product<2>(a, lda, b, k, sums);
    case 3:
      return panel_product<3>(a, lda, b, k, sums);
    case 4:
      return panel_product<4>(a, lda, b, k, sums);
    case 5:
      return panel_product<5>(a, lda, b, k, sums);
    default:
      return panel_product<6>(a, lda, b, k, sums);
  }
}

/// Adds (or stores) the first `columns` sums of each row to C.
template <typename C>
void deliver(const int32_t* sums, int64_t rows, int64_t columns, bool accumulate, C* c, int64_t ldc) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < columns; ++j) {
      C& target = c[r * ldc + j];
      target = (accumulate ? target : C{0}) + sums[r * kPanel + j];
    }
  }
}

template <typename C>
void gemm_int8(const IntegerGemm& g, int64_t chunk) {
  alignas(64) int32_t sums[kTileRows * kPanel];
  for (int64_t j = 0; j < g.n; j += kPanel) {
    const int8_t* panel = static_cast<const int8_t*>(g.b) + j / kPanel * g.panel_stride;
    for (int64_t i = 0; i < g.m; i += kTileRows) {
      const int64_t rows = std::min(kTileRows, g.m - i);
      for (int64_t k = 0; k < g.k; k += chunk) {
        panel_rows(rows, g.a + i * g.lda + k, g.lda, panel + k * kPanel, std::min(chunk, g.k - k), sums);
        deliver(sums, rows, std::min(kPanel, g.n - j), g.accumulate || k > 0,
                static_cast<C*>(g.c) + i * g.ldc + j, g.ldc);
      }
    }
  }
}

void gemm_narrow(const IntegerGemm& g) {
  gemm_int8<int32_t>(g, INT64_C(1) << 16);
}

void gemm_wide(const IntegerGemm& g) {
  gemm_int8<int64_t>(g, kWideChunk);
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

constexpr IntegerKernels make_integer_kernels(model::CpuPath path) {
  return {path, gemm_narrow, gemm_wide, gemm_wide16};
}

}  // namespace
}  // namespace qeval::quant
