#pragma once

// Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "quant/integer/integer_model.h"
#include "quant/integer/run/kernels.h"

namespace qeval::quant {
namespace {

// Products of an int16_t and an int8_t that an int32_t lane can add up in pairs: 255 · 2 · 2^22 < 2^31.
constexpr int64_t kWideChunk = 480;
// Two registers of sums a row, two of B, one of A and one for the product: six rows fit sixteen registers.
constexpr int64_t kTileRows = 6;

#ifdef __AVX2__

/// Eight columns' pairs as 16-bit numbers.
inline __m256i load_pairs(const int8_t* b) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
}

/// sums [ROWS, kPanel] = A [ROWS, k] · one panel, over at most kWideChunk inputs where A is wide.
/// Rows are a pack rather than a loop: indices that are known before the compiler places the sums keep these
/// in registers.
template <size_t... ROW>
void panel_product(std::index_sequence<ROW...>, const int16_t* a, int64_t lda, const int8_t* b, int64_t k,
                   int32_t* sums) {
  __m256i left[] = {(static_cast<void>(ROW), _mm256_setzero_si256())...};
  __m256i right[] = {(static_cast<void>(ROW), _mm256_setzero_si256())...};
  const int16_t* rows[] = {(a + static_cast<int64_t>(ROW) * lda)...};
  const auto add = [](__m256i x, __m256i codes, __m256i& sum) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, codes));
  };
  const auto pair_at = [](const int16_t* from) {
    int32_t pair = 0;
    std::memcpy(&pair, from, sizeof(pair));
    return _mm256_set1_epi32(pair);
  };
  for (int64_t i = 0; i + 1 < k; i += 2) {
    const __m256i b0 = load_pairs(b + i * kPanel);
    const __m256i b1 = load_pairs(b + i * kPanel + 16);
    ((add(pair_at(rows[ROW] + i), b0, left[ROW]), add(pair_at(rows[ROW] + i), b1, right[ROW])), ...);
  }
  (_mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + ROW * kPanel), left[ROW]), ...);
  (_mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + ROW * kPanel + 8), right[ROW]), ...);
}

template <int ROWS>
void panel_product(const int16_t* a, int64_t lda, const int8_t* b, int64_t k, int32_t* sums) {
  panel_product(std::make_index_sequence<ROWS>(), a, lda, b, k, sums);
  if (k % 2 == 0) return;
  // The last pair has one input only. Apart, so that it costs the loop above no registers.
  const int8_t* codes = b + (k - 1) * kPanel;
  for (int r = 0; r < ROWS; ++r) {
    for (int64_t j = 0; j < kPanel; ++j) sums[r * kPanel + j] += a[r * lda + k - 1] * codes[2 * j];
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

void requantize_row(const Requantization& r) {
  int64_t j = 0;
#ifdef __AVX2__
  const __m256i base = _mm256_set1_epi32(r.base);
  const __m256i factor = _mm256_set1_epi32(r.weight_factor);
  const __m256i zero_point = _mm256_set1_epi32(r.output.zero_point);
  const __m256i lo = _mm256_set1_epi32(r.output.lo);
  const __m256i hi = _mm256_set1_epi32(r.output.hi);
  const auto load = [](const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); };
  for (; j + 8 <= r.n; j += 8) {
    const int64_t column = r.uniform ? 0 : j;
    __m256i sum = _mm256_add_epi32(load(r.sums + j), base);
    if (r.constant != nullptr) sum = _mm256_add_epi32(sum, load(r.constant + j));
    sum = _mm256_sub_epi32(sum, _mm256_mullo_epi32(load(r.weight + j), factor));
    const __m256i multiplier = load(r.fast.multiplier + column);
    const __m256i shift = load(r.fast.shift + column);
    // 64-bit products of the even and of the odd columns, half a unit added; what counts is above bit 32.
    const __m256i one = _mm256_set1_epi64x(1);
    const __m256i even_half = _mm256_sllv_epi64(
        one, _mm256_add_epi64(_mm256_and_si256(shift, _mm256_set1_epi64x(63)), _mm256_set1_epi64x(31)));
    const __m256i odd_half =
        _mm256_sllv_epi64(one, _mm256_add_epi64(_mm256_srli_epi64(shift, 32), _mm256_set1_epi64x(31)));
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(sum, multiplier), even_half);
    const __m256i odd = _mm256_add_epi64(
        _mm256_mul_epi32(_mm256_srli_epi64(sum, 32), _mm256_srli_epi64(multiplier, 32)), odd_half);
    __m256i code = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
    code = _mm256_add_epi32(_mm256_srav_epi32(code, shift), zero_point);
    code = _mm256_min_epi32(_mm256_max_epi32(code, lo), hi);
    const __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(r.out + j), packed);
  }
#endif
  for (; j < r.n; ++j) {
    const int64_t column = r.uniform ? 0 : j;
    // Modulo 2^32: the sum itself fits.
    uint32_t sum = static_cast<uint32_t>(r.sums[j]) + static_cast<uint32_t>(r.base);
    if (r.constant != nullptr) sum += static_cast<uint32_t>(r.constant[j]);
    sum -= static_cast<uint32_t>(r.weight[j]) * static_cast<uint32_t>(r.weight_factor);
    const int64_t product = static_cast<int64_t>(static_cast<int32_t>(sum)) * r.fast.multiplier[column];
    const int64_t scaled = shift_rounded(product, r.fast.shift[column] + 32);
    r.out[j] =
        static_cast<int16_t>(std::clamp<int64_t>(scaled + r.output.zero_point, r.output.lo, r.output.hi));
  }
}

uint64_t exponentials(const uint32_t* coarse, const uint32_t* fine, int64_t n, const int16_t* row,
                      uint32_t* powers) {
  int32_t largest = row[0];
  for (int64_t i = 1; i < n; ++i) largest = std::max<int32_t>(largest, row[i]);
  uint64_t sum = 0;
  int64_t i = 0;
#ifdef __AVX2__
  __m256i sums = _mm256_setzero_si256();
  const __m256i low_byte = _mm256_set1_epi32(255);
  for (; i + 8 <= n; i += 8) {
    const __m256i codes = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i)));
    const __m256i below = _mm256_sub_epi32(_mm256_set1_epi32(largest), codes);
    const __m256i c =
        _mm256_i32gather_epi32(reinterpret_cast<const int*>(coarse), _mm256_srli_epi32(below, 8), 4);
    const __m256i f =
        _mm256_i32gather_epi32(reinterpret_cast<const int*>(fine), _mm256_and_si256(below, low_byte), 4);
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(c, f), kExpBits);
    const __m256i odd =
        _mm256_srli_epi64(_mm256_mul_epu32(_mm256_srli_epi64(c, 32), _mm256_srli_epi64(f, 32)), kExpBits);
    sums = _mm256_add_epi64(sums, _mm256_add_epi64(even, odd));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(powers + i),
                        _mm256_or_si256(even, _mm256_slli_epi64(odd, 32)));
  }
  alignas(32) uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sums);
  sum = parts[0] + parts[1] + parts[2] + parts[3];
#endif
  for (; i < n; ++i) {
    const auto below = static_cast<uint32_t>(largest - row[i]);
    const uint64_t product = static_cast<uint64_t>(coarse[below >> 8]) * fine[below & 255];
    powers[i] = static_cast<uint32_t>(product >> kExpBits);
    sum += powers[i];
  }
  return sum;
}

void shares(const uint32_t* powers, int64_t n, uint32_t reciprocal, int32_t shift, const CodeRange& codes,
            int16_t* row) {
  // shift ≥ 44 in practice, ≥ 32 by contract: shares fit 31 bits, so that codes may be clamped in 32.
  const uint64_t half = UINT64_C(1) << (shift - 1);
  for (int64_t i = 0; i < n; ++i) {
    const auto share = static_cast<int32_t>((static_cast<uint64_t>(powers[i]) * reciprocal + half) >> shift);
    row[i] = static_cast<int16_t>(std::clamp(share + codes.zero_point, codes.lo, codes.hi));
  }
}

constexpr IntegerKernels make_integer_kernels(model::CpuPath path) {
  return {path, gemm_narrow, gemm_wide, gemm_wide16, requantize_row, exponentials, shares};
}

}  // namespace
}  // namespace qeval::quant
