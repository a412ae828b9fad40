#pragma once

#include <cstdint>

#include "model/checkpoint/tensor.h"

namespace qeval::model {

/// sums[r] ← sums[r] + Σ x[i] · rows[r][i], the chain of fused multiply-adds of Gemm (kernels.h), to the same
/// bits: for a product with a single row of A, which would otherwise cost the packing of B. Rows are read as
/// they are stored; their numbers are those of decode().
struct RowDots {
  int64_t count = 0;  ///< rows, a multiple of kRowDots
  int64_t k = 0;      ///< whole blocks
  const float* x = nullptr;
  const void* const* rows = nullptr;  ///< [count], each k numbers of `type`, of any alignment
  DType type = DType::f32;
  float* sums = nullptr;  ///< [count]
  /// Bytes from a row to what will be asked for next, which is fetched into the second-level cache meanwhile:
  /// the first one has no room for it.
  int64_t ahead = 0;
};
inline constexpr int64_t kRowDots = 8;

/// Whether the path in force (cpu_path()) has row_dots: all but the portable one do.
bool has_row_dots();
/// Those of a type of blocks, or null: most of GGUF's with AVX2, none with NEON.
using RowDotsKernel = void (*)(const RowDots&);
RowDotsKernel block_row_dots(DType type);
/// Whether rows of the type are read: floats, and those blocks. Precondition: has_row_dots().
inline bool reads_rows_of(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || block_row_dots(type) != nullptr;
}
/// Precondition: has_row_dots(), reads_rows_of(product.type).
void row_dots(const RowDots& product);

/// The first rows of the product, as many as the answer says: those that AVX-512 does better.
int64_t row_dots_avx512(const RowDots& product);

}  // namespace qeval::model
