#include "model/kernels/matmul.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/parallel.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

// Columns of a tile and the stretch of the inner dimension packed at a time: 192 KiB of panels, which stay in
// the second-level cache while the rows of A stream past.
constexpr int64_t kTileColumns = 96;
constexpr int64_t kDepth = 512;
// Rows of a tile: packing B again for every tile costs a few percent at this many.
constexpr int64_t kProductTileRows = 768;

/// Rows [first, first + depth) of columns [col, col + count) of b as panels [depth, panel].
void pack(const FloatMatrix& b, int64_t first, int64_t depth, int64_t col, int64_t count, float* packed) {
  const Kernels& kernel = kernels();
  const int64_t panel = kernel.panel;
  for (int64_t p = 0; p < count; p += panel) {
    const int64_t width = std::min(panel, count - p);
    const float* source = b.data + first * b.row_step + (col + p) * b.col_step;
    float* out = packed + p * depth;
    if (b.col_step != 1) {  // columns of b are contiguous: rows of its transpose
      kernel.pack_panel(source, b.col_step, width, depth, out);
      continue;
    }
    for (int64_t i = 0; i < depth; ++i) {
      std::memcpy(out + i * panel, source + i * b.row_step, static_cast<size_t>(width) * sizeof(float));
      if (width < panel)
        std::memset(out + i * panel + width, 0, static_cast<size_t>(panel - width) * sizeof(float));
    }
  }
}

/// Rows [row, row + rows) and columns [col, col + cols) of the product.
void multiply_tile(const FloatMatrix& a, const FloatMatrix& b, int64_t row, int64_t rows, int64_t col,
                   int64_t cols, float* c, int64_t ldc, bool accumulate) {
  thread_local AlignedBuffer panels;
  const Kernels& kernel = kernels();
  const int64_t panel = kernel.panel;
  const int64_t padded = (cols + panel - 1) / panel * panel;
  const int64_t inner = a.cols;
  panels.resize(static_cast<size_t>(padded * std::min(inner, kDepth)) * sizeof(float));
  for (int64_t first = 0; first < inner; first += kDepth) {
    const int64_t depth = std::min(kDepth, inner - first);
    pack(b, first, depth, col, cols, panels.as<float>());
    kernel.gemm({.m = rows,
                 .n = cols,
                 .k = depth,
                 .a = a.data + row * a.row_step + first * a.col_step,
                 .lda = a.row_step,
                 .a_step = a.col_step,
                 .b = panels.as<float>(),
                 .ldb = panel,
                 .panel_stride = panel * depth,
                 .c = c + row * ldc + col,
                 .ldc = ldc,
                 .accumulate = accumulate || first > 0});
  }
}

}  // namespace

void matmul_block(const FloatMatrix& a, const FloatMatrix& b, float* c, int64_t ldc, bool accumulate) {
  assert(a.cols == b.rows);
  for (int64_t col = 0; col < b.cols; col += kTileColumns)
    multiply_tile(a, b, 0, a.rows, col, std::min(kTileColumns, b.cols - col), c, ldc, accumulate);
}

void matmul(const FloatMatrix& a, const FloatMatrix& b, float* c, int64_t ldc, bool accumulate) {
  assert(a.cols == b.rows);
  const int64_t row_tiles = (a.rows + kProductTileRows - 1) / kProductTileRows;
  const int64_t col_tiles = (b.cols + kTileColumns - 1) / kTileColumns;
  parallel_tasks(row_tiles * col_tiles, [&](int64_t t) {
    const int64_t row = t / col_tiles * kProductTileRows;
    const int64_t col = t % col_tiles * kTileColumns;
    multiply_tile(a, b, row, std::min(kProductTileRows, a.rows - row), col,
                  std::min(kTileColumns, b.cols - col), c, ldc, accumulate);
  });
}

}  // namespace qeval::model
