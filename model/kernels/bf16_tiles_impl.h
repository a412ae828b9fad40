// The bfloat16 product by tiles, for the CPUs that have them and, their instructions emulated, for tests.
#pragma once

#include "model/kernels/bf16.h"
#include "model/kernels/tiles_x86.h"

namespace qeval::model {
namespace {

// tdpbf16ps adds up the products of the first inputs of 16 pairs, and of the second ones, and adds both sums
// to the element.
void bf16_gemm_by_tiles(const Bf16Gemm& g) {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  const int64_t whole = g.n / kBf16Panel, rest = g.n % kBf16Panel;
  TileGemm tiles{.m = g.m,
                 .panels = whole,
                 .entries = g.pairs,
                 .a = g.a,
                 .lda = g.lda * kFloat,
                 .b = g.b,
                 .panel_stride = g.pairs * kBf16Panel * kFloat,
                 .c = g.c,
                 .ldc = g.ldc * kFloat,
                 .accumulate = g.accumulate};
  if (whole > 0) multiply_by_tiles<TileProduct::bf16>(tiles);
  if (rest == 0) return;
  // The last columns aside, some rows at a time.
  constexpr int64_t kRows = 2 * kTileHeight;
  alignas(64) float edge[kRows * kBf16Panel];
  tiles.panels = 1;
  tiles.b = g.b + whole * g.pairs * kBf16Panel;
  tiles.c = edge;
  tiles.ldc = kBf16Panel * kFloat;
  for (int64_t row = 0; row < g.m; row += kRows) {
    tiles.m = g.m - row < kRows ? g.m - row : kRows;
    tiles.a = g.a + row * g.lda;
    float* c = g.c + row * g.ldc + whole * kBf16Panel;
    for (int64_t r = 0; r < tiles.m; ++r) {
      for (int64_t j = 0; j < kBf16Panel; ++j)
        edge[r * kBf16Panel + j] = g.accumulate && j < rest ? c[r * g.ldc + j] : 0.0F;
    }
    tiles.accumulate = g.accumulate;
    multiply_by_tiles<TileProduct::bf16>(tiles);
    for (int64_t r = 0; r < tiles.m; ++r) {
      for (int64_t j = 0; j < rest; ++j) c[r * g.ldc + j] = edge[r * kBf16Panel + j];
    }
  }
}

}  // namespace
}  // namespace qeval::model
