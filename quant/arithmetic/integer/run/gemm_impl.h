#pragma once

// Integer matrix products. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/parallel.h"
#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/vector_path.h"

namespace qeval::quant {
namespace {

// Products of an int16_t and an int8_t that an int32_t lane can add up in pairs: 255 · 2 · 2^22 < 2^31.
constexpr int64_t kWideChunk = 480;

#ifndef QEVAL_VECTORS
constexpr int64_t kTileRows = 4;
#endif

#ifdef QEVAL_VECTORS

/// c [ROWS, kPanel] (+)= A [ROWS, k] · one panel, modulo 2^32. Rows are a pack rather than a loop: indices
/// that are known before the compiler places the sums keep these in registers.
template <size_t... ROW>
void panel_product(std::index_sequence<ROW...>, const int16_t* a, int64_t lda, const int8_t* b, int64_t k,
                   int32_t* c, int64_t ldc, bool accumulate) {
  static constexpr int32_t kNothing[kPanel] = {};
  Sums sums[] = {load_sums(accumulate ? c + static_cast<int64_t>(ROW) * ldc : kNothing)...};
  const int16_t* rows[] = {(a + static_cast<int64_t>(ROW) * lda)...};
  for (int64_t i = 0; i + 1 < k; i += 2) {
    const Pairs codes = load_pairs(b + i * kPanel);
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
  const Pairs codes = load_pairs(b + (k - 1) * kPanel);
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

#ifdef __AVX512BW__

/// Two panels side by side, whose 24 registers of sums wait for the same broadcasts of A; k even.
struct TwoPanels {
  template <size_t... ROW>
  static void run(std::index_sequence<ROW...>, const IntegerGemm& g, const int16_t* a, const int8_t* b,
                  int32_t* c) {
    static constexpr int32_t kNothing[kPanel] = {};
    const auto before = [&](size_t row, int64_t column) {
      return load_sums(g.accumulate ? c + static_cast<int64_t>(row) * g.ldc + column : kNothing);
    };
    Sums left[] = {before(ROW, 0)...};
    Sums right[] = {before(ROW, kPanel)...};
    const int16_t* rows[] = {(a + static_cast<int64_t>(ROW) * g.lda)...};
    const auto add = [&](size_t row, int64_t i, const Pairs& codes, const Pairs& codes2) {
      const int32_t pair = load_int32(rows[row] + i);
      add_pairs(left[row], pair, codes);
      add_pairs(right[row], pair, codes2);
    };
    for (int64_t i = 0; i < g.k; i += 2) {
      const Pairs codes = load_pairs(b + i * kPanel);
      const Pairs codes2 = load_pairs(b + g.panel_stride + i * kPanel);
      (add(ROW, i, codes, codes2), ...);
    }
    (store_sums(c + static_cast<int64_t>(ROW) * g.ldc, left[ROW]), ...);
    (store_sums(c + static_cast<int64_t>(ROW) * g.ldc + kPanel, right[ROW]), ...);
  }
  template <int ROWS>
  static void run(const IntegerGemm* g, const int16_t* a, const int8_t* b, int32_t* c) {
    run(std::make_index_sequence<ROWS>(), *g, a, b, c);
  }
};

#endif

void gemm_modular(const IntegerGemm& g) {
#ifdef QEVAL_TILES
  if (g.m >= kTileHeight) return gemm_pairs_by_tiles<int32_t, false>(g);
#endif
  int64_t j = 0;
#ifdef __AVX512BW__
  for (; g.k % 2 == 0 && j + 2 * kPanel <= g.n; j += 2 * kPanel) {
    for (int64_t i = 0; i < g.m; i += kTileRows) {
      with_rows<TwoPanels>(std::min(kTileRows, g.m - i), &g, g.a + i * g.lda,
                           static_cast<const int8_t*>(g.b) + j / kPanel * g.panel_stride,
                           static_cast<int32_t*>(g.c) + i * g.ldc + j);
    }
  }
#endif
  for (; j < g.n; j += kPanel) {
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
#ifdef QEVAL_TILES
  if (g.m >= kTileHeight) return gemm_pairs_by_tiles<int64_t, false>(g);
#endif
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

#ifdef QEVAL_BYTE_PRODUCTS

#ifdef QEVAL_SIGNED_PRODUCTS

/// c [m, columns] += what its sums of a panel's products lack; `quad(e)` are the panel's codes of inputs 4e …
/// 4e + 3.
template <typename Quad>
void add_offsets(int32_t* c, int64_t ldc, int64_t m, int64_t columns, int64_t entries, const Quad& quad) {
  int32_t offsets[kPanel] = {};
  Sums sums = load_sums(offsets);
  for (int64_t e = 0; e < entries; ++e) add_offsets(sums, quad(e));
  store_sums(offsets, sums);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      int32_t& sum = c[i * ldc + j];
      sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(offsets[j]));
    }
  }
}

#endif

/// The last of an odd number of pairs, with a pair of zeros.
inline Quads load_last_pair(const int8_t* b) {
  int8_t last[4 * kPanel] = {};
  std::memcpy(last, b, sizeof(last) / 2);
  return load_pairs_as_quads(last);
}

struct NarrowProduct {
  template <size_t... ROW>
  static void run(std::index_sequence<ROW...>, const uint8_t* a, int64_t lda, const int8_t* b, int64_t pairs,
                  int32_t* c, int64_t ldc, bool accumulate) {
    static constexpr int32_t kNothing[kPanel] = {};
    Sums sums[] = {load_sums(accumulate ? c + static_cast<int64_t>(ROW) * ldc : kNothing)...};
    for (int64_t p = 0; p + 1 < pairs; p += 2, a += 4, b += 4 * kPanel) {
      const Quads codes = load_pairs_as_quads(b);
      (add_quads(sums[ROW], broadcast_int32(a + static_cast<int64_t>(ROW) * lda), codes), ...);
    }
    if (pairs % 2 != 0) {
      const Quads codes = load_last_pair(b);
      (add_quads(sums[ROW], broadcast_int32(a + static_cast<int64_t>(ROW) * lda), codes), ...);
    }
    (store_sums(c + static_cast<int64_t>(ROW) * ldc, sums[ROW]), ...);
  }
  template <int ROWS>
  static void run(const uint8_t* a, int64_t lda, const int8_t* b, int64_t pairs, int32_t* c, int64_t ldc,
                  bool accumulate) {
    run(std::make_index_sequence<ROWS>(), a, lda, b, pairs, c, ldc, accumulate);
  }
};

/// bytes [stride] ← codes [n] of 0 … 255, zeros behind them.
inline void codes_to_bytes(const int16_t* codes, int64_t n, uint8_t* bytes, int64_t stride) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) narrow_32(codes + i, bytes + i);
  for (; i < n; ++i) bytes[i] = static_cast<uint8_t>(codes[i]);
  for (; i < stride; ++i) bytes[i] = 0;
}

void gemm_narrow(const IntegerGemm& g) {
#ifdef QEVAL_TILES
  if (g.m >= kTileHeight) return gemm_pairs_by_tiles<int32_t, true>(g);
#endif
  // Laying out anew pays for itself over some rows.
  if (g.m < 8) return gemm_modular(g);
  const int64_t lda = (g.k + 3) / 4 * 4;
  uint8_t* a = gemm_scratch(g.m * lda);
  for (int64_t i = 0; i < g.m; ++i) codes_to_bytes(g.a + i * g.lda, g.k, a + i * lda, lda);
  const int64_t pairs = (g.k + 1) / 2;
  for (int64_t j = 0; j < g.n; j += kPanel) {
    const int8_t* panel = static_cast<const int8_t*>(g.b) + j / kPanel * g.panel_stride;
    for (int64_t i = 0; i < g.m; i += kTileRows) {
      const int64_t rows = std::min(kTileRows, g.m - i);
      into(static_cast<int32_t*>(g.c) + i * g.ldc + j, g.ldc, rows, std::min(kPanel, g.n - j), g.accumulate,
           [&](int32_t* c, int64_t ldc, bool accumulate) {
             with_rows<NarrowProduct>(rows, static_cast<const uint8_t*>(a + i * lda), lda, panel, pairs, c,
                                      ldc, accumulate);
           });
    }
#ifdef QEVAL_SIGNED_PRODUCTS
    add_offsets(static_cast<int32_t*>(g.c) + j, g.ldc, g.m, std::min(kPanel, g.n - j), lda / 4,
                [&](int64_t e) {
                  const int8_t* b = panel + e * 4 * kPanel;
                  return 2 * e + 1 < pairs ? load_pairs_as_quads(b) : load_last_pair(b);
                });
#endif
  }
}

#else

void gemm_narrow(const IntegerGemm& g) {
  gemm_modular(g);
}

#endif

}  // namespace
}  // namespace qeval::quant
