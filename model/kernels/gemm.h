#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/weights.h"

namespace qeval::model {

/// A weight matrix [rows, cols] as the matrix product sees it: something that can decode tiles of it to
/// float32. `context` must outlive the view. decode is called from many threads.
struct WeightView {
  int64_t rows = 0, cols = 0;
  const float* bias = nullptr;  ///< [rows] or null
  const void* context = nullptr;
  /// Decodes elements [tile.row, + rows) × [tile.col, + cols) to rows `stride` apart; col and cols are
  /// multiples of kColumnBlock except for the end of the row.
  struct Tile {
    int64_t row, rows, col, cols;
    float* out;
    int64_t stride;
  };
  void (*decode)(const void* context, const Tile& tile) = nullptr;
};

/// Columns of a weight row that are decoded and multiplied at a time: a multiple of every GGUF block size.
inline constexpr int64_t kColumnBlock = 768;

/// View of a stored matrix, decoded from its stored type on the way into the product.
WeightView view(const Matrix& matrix, const float* bias = nullptr);
WeightView view(const LinearWeights& weights);

/// c [m, count] ← a [m, cols] · w[first, first + count)ᵀ + bias, on the calling thread. Row strides lda and
/// ldc. Bits as kernels.h's Gemm promises, then one addition for the bias.
void multiply_block(const WeightView& w, int64_t first, int64_t count, const float* a, int64_t lda, int64_t m,
                    float* c, int64_t ldc);

/// What happens to finished elements while they are in the cache: apply(context, x, n) changes n of them in
/// place, each by itself. Called from many threads.
struct Epilogue {
  const void* context = nullptr;
  void (*apply)(const void* context, float* x, int64_t n) = nullptr;  ///< null: nothing
};

/// One product of a group that shares its input.
struct Product {
  WeightView weight;
  float* out;  ///< [m, weight.rows], contiguous
  Epilogue epilogue{};
};

/// A product with an input of its own, a [m, weight.cols].
struct RowsProduct {
  Product product;
  const float* a = nullptr;
  int64_t m = 0;
};

/// A block of a product's output: rows [first_input, + rows) of the input by weights [first_weight, + count).
struct ProductBlock {
  const Product* product;
  int64_t first_weight, count, first_input, rows;

  int64_t stride() const { return product->weight.rows; }
  float* out() const { return product->out + first_input * stride() + first_weight; }
};

/// Calls body for every block of the products of an input of m rows, in parallel.
void for_each_block(int64_t m, std::span<const Product> products,
                    const std::function<void(const ProductBlock&)>& body);

/// Computes all products of one input a [m, cols] in parallel.
void multiply(const float* a, int64_t m, std::span<const Product> products);
/// The same for products of inputs of their own.
void multiply_rows(std::span<const RowsProduct> products);
/// Calls body(a, block) for every block of such products, in parallel.
void for_each_rows_block(std::span<const RowsProduct> products,
                         const std::function<void(const float* a, const ProductBlock&)>& body);

}  // namespace qeval::model
