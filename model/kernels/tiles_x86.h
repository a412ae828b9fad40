#pragma once

// Products by AMX's tiles: 16 rows of A by 16 columns of B and 64 bytes of their inputs an instruction.
// Compiled where a path has them; no standard library call, for the reason given in kernels_impl.h, and no
// floating-point instruction but the one that Product stands for.

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

namespace qeval::model {
namespace {

constexpr int64_t kTileHeight = 16;   ///< rows of a tile
constexpr int64_t kTileColumns = 16;  ///< of 32-bit sums
constexpr int64_t kTileEntries = 16;  ///< 32-bit words of a row of A, and rows of B
constexpr int64_t kEntryBytes = 4 * kTileColumns;

/// C [m, panels · 16] (+)= A [m, entries] · B. A word of A holds neighbours of the inner dimension, four
/// bytes or two bfloat16; B comes in panels [entries, 16] of such words, C has 32-bit sums.
struct TileGemm {
  int64_t m = 0, panels = 0, entries = 0;
  const void* a = nullptr;
  int64_t lda = 0;  ///< bytes
  const void* b = nullptr;
  int64_t panel_stride = 0;  ///< bytes
  void* c = nullptr;
  int64_t ldc = 0;  ///< bytes
  bool accumulate = false;
};

// What one instruction adds to tile `sums`: products of tiles a and b. The numbers are part of its encoding.
enum class TileProduct : uint8_t { unsigned_bytes, signed_bytes, bf16 };
#ifdef __AMX_INT8__
#define QEVAL_TILE_PRODUCT(sums, a, b)                    \
  do {                                                    \
    if constexpr (PRODUCT == TileProduct::signed_bytes) { \
      _tile_dpbssd(sums, a, b);                           \
    } else {                                              \
      static_assert(PRODUCT != TileProduct::bf16);        \
      _tile_dpbusd(sums, a, b);                           \
    }                                                     \
  } while (false)
#else
#define QEVAL_TILE_PRODUCT(sums, a, b)           \
  do {                                           \
    static_assert(PRODUCT == TileProduct::bf16); \
    _tile_dpbf16ps(sums, a, b);                  \
  } while (false)
#endif

/// What LDTILECFG reads. Tiles 0 to 3 are sums, 4 and 5 are of A, 6 and 7 of B.
struct TileConfiguration {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TileConfiguration(int64_t height, int64_t entries) {
    for (int t = 0; t < 8; ++t) {
      row_bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? 4 * entries : kEntryBytes);
      rows[t] = static_cast<uint8_t>(t < 6 ? height : entries);
    }
  }
};

/// Two by two tiles of sums, or fewer, over `steps` times `width` entries: what is loaded is shared.
template <TileProduct PRODUCT, bool LOWER, bool RIGHT>
void multiply_tiles(const TileGemm& g, const uint8_t* a, const uint8_t* b, uint8_t* c, int64_t height,
                    int64_t width, int64_t steps, bool accumulate) {
  const auto c_bytes = static_cast<size_t>(g.ldc), a_bytes = static_cast<size_t>(g.lda);
  uint8_t* below = c + height * g.ldc;
  if (accumulate) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (RIGHT) _tile_loadd(1, c + kEntryBytes, c_bytes);
    if constexpr (LOWER) _tile_loadd(2, below, c_bytes);
    if constexpr (LOWER && RIGHT) _tile_loadd(3, below + kEntryBytes, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; ++s, a += 4 * width, b += width * kEntryBytes) {
    _tile_loadd(4, a, a_bytes);
    _tile_loadd(6, b, kEntryBytes);
    if constexpr (LOWER) _tile_loadd(5, a + height * g.lda, a_bytes);
    if constexpr (RIGHT) _tile_loadd(7, b + g.panel_stride, kEntryBytes);
    QEVAL_TILE_PRODUCT(0, 4, 6);
    if constexpr (RIGHT) QEVAL_TILE_PRODUCT(1, 4, 7);
    if constexpr (LOWER) QEVAL_TILE_PRODUCT(2, 5, 6);
    if constexpr (LOWER && RIGHT) QEVAL_TILE_PRODUCT(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (RIGHT) _tile_stored(1, c + kEntryBytes, c_bytes);
  if constexpr (LOWER) _tile_stored(2, below, c_bytes);
  if constexpr (LOWER && RIGHT) _tile_stored(3, below + kEntryBytes, c_bytes);
}

/// Rows [first, + count) in tiles of `height`, which divides count, and entries [from, + steps · width).
template <TileProduct PRODUCT>
void multiply_tiles(const TileGemm& g, int64_t first, int64_t count, int64_t height, int64_t from,
                    int64_t width, int64_t steps, bool accumulate) {
  const TileConfiguration configuration(height, width);
  // GCC's intrinsics do not say what they read: what was stored before must be in memory.
  asm volatile("" : : "r"(&configuration) : "memory");
  _tile_loadconfig(&configuration);
  for (int64_t p = 0; p < g.panels; p += 2) {
    const auto* b = static_cast<const uint8_t*>(g.b) + p * g.panel_stride + from * kEntryBytes;
    for (int64_t i = first; i < first + count; i += 2 * height) {
      const auto* a = static_cast<const uint8_t*>(g.a) + i * g.lda + 4 * from;
      auto* c = static_cast<uint8_t*>(g.c) + i * g.ldc + p * kEntryBytes;
      const bool lower = i + height < first + count, right = p + 1 < g.panels;
      const auto multiply =
          lower   ? right ? multiply_tiles<PRODUCT, true, true> : multiply_tiles<PRODUCT, true, false>
            : right ? multiply_tiles<PRODUCT, false, true>
                  : multiply_tiles<PRODUCT, false, false>;
      multiply(g, a, b, c, height, width, steps, accumulate);
    }
  }
}

/// The entries of every element are added up sixteen at a time from the first one on, whatever m and the
/// panels are.
template <TileProduct PRODUCT>
void multiply_by_tiles(const TileGemm& g) {
  const int64_t whole = g.entries / kTileEntries, rest = g.entries % kTileEntries;
  const int64_t whole_rows = g.m / kTileHeight * kTileHeight;
  for (const bool last : {false, true}) {
    const int64_t first = last ? whole_rows : 0, count = last ? g.m - whole_rows : whole_rows;
    const int64_t height = last ? count : kTileHeight;
    if (count == 0) continue;
    if (whole > 0) {
      multiply_tiles<PRODUCT>(g, first, count, height, 0, kTileEntries, whole, g.accumulate);
    }
    if (rest > 0) {
      multiply_tiles<PRODUCT>(g, first, count, height, whole * kTileEntries, rest, 1,
                              g.accumulate || whole > 0);
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace qeval::model
