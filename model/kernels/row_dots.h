#pragma once

#include <cstdint>

namespace qeval::model {

/// Number types whose rows a product with one input reads as they are stored.
enum class RowType : uint8_t { f32, f16, bf16 };

/// sums[r] ← sums[r] + Σ x[i] · rows[r][i], the chain of fused multiply-adds of Gemm (kernels.h), to the same
/// bits: for a product with a single row of A, which would otherwise cost the packing of B.
struct RowDots {
  int64_t count = 0;  ///< rows, a multiple of kRowDots
  int64_t k = 0;
  const float* x = nullptr;
  const void* const* rows = nullptr;  ///< [count], each k numbers of `type`, of any alignment
  RowType type = RowType::f32;
  float* sums = nullptr;  ///< [count]
};
inline constexpr int64_t kRowDots = 8;

/// Whether the path in force (cpu_path()) has row_dots: all but the portable one do.
bool has_row_dots();
/// Precondition: has_row_dots().
void row_dots(const RowDots& product);

}  // namespace qeval::model
