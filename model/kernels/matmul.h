#pragma once

#include <cstdint>

namespace qeval::model {

/// A float matrix [rows, cols] for a product, possibly the transpose of what is stored: element (i, j) is at
/// data[i · row_step + j · col_step], and one of the two steps is 1.
struct FloatMatrix {
  const float* data = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t row_step = 0, col_step = 1;

  FloatMatrix transposed() const { return {data, cols, rows, col_step, row_step}; }
};

/// A stored row-major matrix whose rows are `stride` elements apart.
inline FloatMatrix row_major(const float* data, int64_t rows, int64_t cols, int64_t stride) {
  return {data, rows, cols, stride, 1};
}
inline FloatMatrix row_major(const float* data, int64_t rows, int64_t cols) {
  return row_major(data, rows, cols, cols);
}

/// c [a.rows, b.cols] (row stride ldc) ← a · b, or c + a · b with `accumulate`, on the calling thread.
/// a.cols = b.rows. Every element is one chain over a.cols in ascending order (kernels.h's Gemm), so the bits
/// depend neither on tiles nor on threads.
void matmul_block(const FloatMatrix& a, const FloatMatrix& b, float* c, int64_t ldc, bool accumulate = false);

/// The same, tile by tile in parallel.
void matmul(const FloatMatrix& a, const FloatMatrix& b, float* c, int64_t ldc, bool accumulate = false);

}  // namespace qeval::model
