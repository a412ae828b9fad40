// The bfloat16 product, written once over Ops: the CPU's dot products, or their definition in tests. No
// standard library call below, for the reason given in kernels_impl.h.
#pragma once

#include "model/kernels/bf16.h"

namespace qeval::model {
namespace {

// Sums of 12 rows by two vectors, two vectors of B and one of A: 27 of 32 registers.
constexpr int64_t kBf16Rows = 12;

/// Ops: `Sums` and `Words` of kBf16Panel lanes; zero, load, store, load_words,
/// broadcast_word; dot(sums, a, b): to each lane the products of both halves.
template <typename Ops, int64_t rows>
inline void bf16_tile(const uint32_t* a, int64_t lda, const uint32_t* b, int64_t pairs, float* c, int64_t ldc,
                      bool accumulate) {
  typename Ops::Sums sum[rows][2];
#pragma GCC unroll 16
  for (int64_t r = 0; r < rows; ++r) {
    sum[r][0] = accumulate ? Ops::load(c + r * ldc) : Ops::zero();
    sum[r][1] = accumulate ? Ops::load(c + r * ldc + kBf16Panel) : Ops::zero();
  }
  for (int64_t i = 0; i < pairs; ++i) {
    const auto b0 = Ops::load_words(b + i * kBf16Panel);
    const auto b1 = Ops::load_words(b + (pairs + i) * kBf16Panel);
#pragma GCC unroll 16
    for (int64_t r = 0; r < rows; ++r) {
      const auto x = Ops::broadcast_word(a[r * lda + i]);
      sum[r][0] = Ops::dot(sum[r][0], x, b0);
      sum[r][1] = Ops::dot(sum[r][1], x, b1);
    }
  }
#pragma GCC unroll 16
  for (int64_t r = 0; r < rows; ++r) {
    Ops::store(c + r * ldc, sum[r][0]);
    Ops::store(c + r * ldc + kBf16Panel, sum[r][1]);
  }
}

template <typename Ops, int64_t rows>
inline void bf16_row_block(const Bf16Gemm& g, int64_t first_row) {
  if (first_row + rows > g.m) {
    if constexpr (rows > 1) bf16_row_block<Ops, rows - 1>(g, first_row);
    return;
  }
  const uint32_t* a = g.a + first_row * g.lda;
  float* c = g.c + first_row * g.ldc;
  constexpr int64_t kColumns = 2 * kBf16Panel;
  for (int64_t j = 0; j < g.n; j += kColumns) {
    const uint32_t* b = g.b + j * g.pairs;
    if (j + kColumns <= g.n) {
      bf16_tile<Ops, rows>(a, g.lda, b, g.pairs, c + j, g.ldc, g.accumulate);
      continue;
    }
    float edge[rows * kColumns];
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < kColumns; ++i)
        edge[r * kColumns + i] = g.accumulate && j + i < g.n ? c[r * g.ldc + j + i] : 0.0F;
    }
    bf16_tile<Ops, rows>(a, g.lda, b, g.pairs, edge, kColumns, true);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; j + i < g.n; ++i) c[r * g.ldc + j + i] = edge[r * kColumns + i];
    }
  }
}

template <typename Ops>
void bf16_gemm(const Bf16Gemm& g) {
  for (int64_t row = 0; row < g.m; row += kBf16Rows) bf16_row_block<Ops, kBf16Rows>(g, row);
}

}  // namespace
}  // namespace qeval::model
