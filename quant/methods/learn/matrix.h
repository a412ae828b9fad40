#pragma once

#include <cstdint>

#include "base/parallel.h"
#include "model/kernels/matmul.h"

namespace qeval::quant {

/// Uninitialised memory for numbers; growing discards the content.
template <typename Real>
class Scratch {
 public:
  /// Room for `count` numbers.
  Real* get(int64_t count) {
    buffer_.resize(static_cast<size_t>(count) * sizeof(Real));
    return buffer_.as<Real>();
  }
  Real* data() { return buffer_.as<Real>(); }
  const Real* data() const { return buffer_.as<Real>(); }

 private:
  AlignedBuffer buffer_;
};

/// A matrix operand of a number type: in float, what the fast products take.
template <typename Real>
struct Operand {
  const Real* data = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t row_step = 0, col_step = 1;

  Operand transposed() const { return {data, cols, rows, col_step, row_step}; }
};

template <typename Real>
Operand<Real> operand(const Real* data, int64_t rows, int64_t cols, int64_t stride) {
  return {data, rows, cols, stride, 1};
}
template <typename Real>
Operand<Real> operand(const Real* data, int64_t rows, int64_t cols) {
  return {data, rows, cols, cols, 1};
}

/// c (row stride ldc) ← a · b, or c + a · b.
inline void product_block(const Operand<float>& a, const Operand<float>& b, float* c, int64_t ldc,
                          bool accumulate = false) {
  model::matmul_block({a.data, a.rows, a.cols, a.row_step, a.col_step},
                      {b.data, b.rows, b.cols, b.row_step, b.col_step}, c, ldc, accumulate);
}

/// The reference that gradient checks run on.
inline void product_block(const Operand<double>& a, const Operand<double>& b, double* c, int64_t ldc,
                          bool accumulate = false) {
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.cols; ++j) {
      double sum = accumulate ? c[i * ldc + j] : 0.0;
      for (int64_t k = 0; k < a.cols; ++k)
        sum += a.data[i * a.row_step + k * a.col_step] * b.data[k * b.row_step + j * b.col_step];
      c[i * ldc + j] = sum;
    }
  }
}

/// The same in parallel.
inline void product(const Operand<float>& a, const Operand<float>& b, float* c, int64_t ldc,
                    bool accumulate = false) {
  model::matmul({a.data, a.rows, a.cols, a.row_step, a.col_step},
                {b.data, b.rows, b.cols, b.row_step, b.col_step}, c, ldc, accumulate);
}
inline void product(const Operand<double>& a, const Operand<double>& b, double* c, int64_t ldc,
                    bool accumulate = false) {
  product_block(a, b, c, ldc, accumulate);
}

}  // namespace qeval::quant
