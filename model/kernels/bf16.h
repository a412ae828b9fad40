#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "model/kernels/gemm.h"

namespace qeval::model {

/// c [m, n] (+)= a [m, 2 · pairs] · b, with operands rounded to bfloat16 and float32 sums. A word holds two
/// neighbours of the inner dimension, the first in its lower half. B comes in an even number of panels of
/// kBf16Panel columns, [pairs, kBf16Panel] words each; missing columns are zeros. The order of an element's
/// sums is the kernel's own; it does not depend on m, n or tiles.
struct Bf16Gemm {
  int64_t m = 0, n = 0, pairs = 0;
  const uint32_t* a = nullptr;
  int64_t lda = 0;  ///< words
  const uint32_t* b = nullptr;
  float* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};
inline constexpr int64_t kBf16Panel = 16;

/// How one kind of CPU computes it. Denormal numbers, operands and sums, may count as zeros.
struct Bf16Kernels {
  std::string_view name;        ///< for reports
  std::string_view arithmetic;  ///< what results call it: other sums, other bits
  void (*multiply)(const Bf16Gemm&) = nullptr;
  /// out [n, rounded up to even] ← n values as bfloat16, rounded half to even; NaN stays NaN. An odd n is
  /// padded with a zero.
  void (*narrow)(const float* x, int64_t n, uint16_t* out) = nullptr;
  /// panel [(k + 1) / 2, kBf16Panel] ← rows [count ≤ kBf16Panel, k]; missing rows are zeros.
  void (*pack)(const float* rows, int64_t count, int64_t k, uint32_t* panel) = nullptr;
};
using Bf16Kernel = const Bf16Kernels*;

/// The products of this CPU, or null where it has none or QEVAL_CPU names another path: by AMX's tiles,
/// unless QEVAL_CPU is set at all, else by AVX512_BF16's dot products (vdpbf16ps: one chain over the pairs in
/// ascending order).
Bf16Kernel bf16_kernel();
Bf16Kernel bf16_dot_kernel();   ///< by dot products, or null
Bf16Kernel bf16_tile_kernel();  ///< by tiles, or null

/// Bf16Kernels::narrow and pack on any CPU.
void narrow_bf16(const float* x, int64_t n, uint16_t* out);
void pack_bf16(const float* rows, int64_t count, int64_t k, uint32_t* panel);

/// As gemm.h's multiply_block and multiply, with operands rounded to bfloat16.
void multiply_block_bf16(Bf16Kernel kernel, const WeightView& w, int64_t first, int64_t count, const float* a,
                         int64_t lda, int64_t m, float* c, int64_t ldc);
void multiply_bf16(Bf16Kernel kernel, const float* a, int64_t m, std::span<const Product> products);
void multiply_rows_bf16(Bf16Kernel kernel, std::span<const RowsProduct> products);

/// Whether `w`'s product with some hundred rows takes less time by `kernel` than in float32 here and now.
/// Runs each a few times: a fraction of a second.
bool bf16_is_faster(Bf16Kernel kernel, const WeightView& w);

// Of the CPUs that have them.
void bf16_gemm_avx512(const Bf16Gemm& g);
void narrow_bf16_avx512(const float* x, int64_t n, uint16_t* out);
void pack_bf16_avx512(const float* rows, int64_t count, int64_t k, uint32_t* panel);
void bf16_gemm_avx512_amx(const Bf16Gemm& g);

}  // namespace qeval::model
