#pragma once

// Products of bytes by AMX's tiles, added up in 32 bits without saturating. Included where a path has them
// (__AMX_INT8__); no floating point.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "model/kernels/tiles_x86.h"
#include "quant/arithmetic/integer/run/gemm_x86.h"
#include "quant/arithmetic/integer/run/kernels.h"

#define QEVAL_TILES

namespace qeval::quant {
namespace {

using model::kTileHeight;
using model::TileGemm;
using model::TileProduct;

// A single row is read as fast as memory gives the weights, by vectors.
constexpr int64_t kLeastTileRows = 2;
// Inputs of 16-bit codes that are laid out at a time: their panels stay in the second-level cache.
constexpr int64_t kTileInputs = 2048;

/// The lower or the upper bytes of n codes, zeros behind them up to `stride`.
template <int SHIFT>
inline void bytes_of(const int16_t* codes, int64_t n, uint8_t* bytes, int64_t stride) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const auto wide = _mm512_srai_epi16(_mm512_loadu_si512(codes + i), SHIFT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + i), _mm512_cvtepi16_epi8(wide));
  }
  for (; i < n; ++i) bytes[i] = static_cast<uint8_t>(codes[i] >> SHIFT);
  std::fill(bytes + n, bytes + stride, uint8_t{0});
}

/// A panel of pairs of k inputs as quads.
inline void pairs_to_quads(const int8_t* pairs, int64_t k, int8_t* quads) {
  const int64_t whole = (k + 1) / 2 / 2;
  for (int64_t e = 0; e < whole; ++e) {
    const Quads codes = load_pairs_as_quads(pairs + e * kQuadEntry);
    _mm512_storeu_si512(quads + e * kQuadEntry, codes.all);
  }
  if ((k + 1) / 2 % 2 == 0) return;
  int8_t last[kQuadEntry] = {};
  std::memcpy(last, pairs + whole * kQuadEntry, kQuadEntry / 2);
  const Quads codes = load_pairs_as_quads(last);
  _mm512_storeu_si512(quads + whole * kQuadEntry, codes.all);
}

/// IntegerGemm by tiles, Sum int32_t (modulo 2^32) or int64_t. Codes of 16 bits are 256 times a signed byte
/// plus an unsigned one, with sums of each; `narrow`: the unsigned one is all.
template <typename Sum, bool NARROW>
void gemm_pairs_by_tiles(const IntegerGemm& g) {
  const int64_t panels = (g.n + kPanel - 1) / kPanel;
  const int64_t most = std::min(g.k, kTileInputs);
  const int64_t lda = (most + 63) / 64 * 64;
  const int64_t quad_bytes = (most + 3) / 4 * kQuadEntry;
  const int64_t a_bytes = g.m * lda;
  const int64_t columns = panels * kPanel;
  const int64_t c_bytes = g.m * columns * static_cast<int64_t>(sizeof(int32_t));
  uint8_t* low = gemm_scratch(2 * a_bytes + panels * quad_bytes + 2 * c_bytes);
  uint8_t* high = low + a_bytes;
  auto* quads = reinterpret_cast<int8_t*>(high + a_bytes);
  auto* low_sums = reinterpret_cast<int32_t*>(quads + panels * quad_bytes);
  int32_t* high_sums = low_sums + g.m * columns;
  for (int64_t from = 0; from < g.k; from += most) {
    const int64_t k = std::min(most, g.k - from);
    const int64_t entries = (k + 3) / 4;
    for (int64_t i = 0; i < g.m; ++i) {
      const int16_t* codes = g.a + i * g.lda + from;
      bytes_of<0>(codes, k, low + i * lda, 4 * entries);
      if constexpr (!NARROW) bytes_of<8>(codes, k, high + i * lda, 4 * entries);
    }
    for (int64_t p = 0; p < panels; ++p) {
      pairs_to_quads(static_cast<const int8_t*>(g.b) + p * g.panel_stride + from * kPanel, k,
                     quads + p * quad_bytes);
    }
    const TileGemm lower{.m = g.m,
                         .panels = panels,
                         .entries = entries,
                         .a = low,
                         .lda = lda,
                         .b = quads,
                         .panel_stride = quad_bytes,
                         .c = low_sums,
                         .ldc = columns * static_cast<int64_t>(sizeof(int32_t))};
    model::multiply_by_tiles<TileProduct::unsigned_bytes>(lower);
    if constexpr (!NARROW) {
      TileGemm upper = lower;
      upper.a = high;
      upper.c = high_sums;
      model::multiply_by_tiles<TileProduct::signed_bytes>(upper);
    }
    const bool accumulate = g.accumulate || from > 0;
    for (int64_t i = 0; i < g.m; ++i) {
      Sum* c = static_cast<Sum*>(g.c) + i * g.ldc;
      const int32_t* unsigned_sums = low_sums + i * columns;
      const int32_t* signed_sums = high_sums + i * columns;
      for (int64_t j = 0; j < g.n; ++j) {
        using Wide = std::conditional_t<sizeof(Sum) == 4, uint32_t, int64_t>;
        Wide sum = static_cast<Wide>(unsigned_sums[j]);
        if constexpr (!NARROW) sum += 256 * static_cast<Wide>(signed_sums[j]);
        c[j] = static_cast<Sum>(accumulate ? static_cast<Wide>(c[j]) + sum : sum);
      }
    }
  }
}

}  // namespace
}  // namespace qeval::quant
