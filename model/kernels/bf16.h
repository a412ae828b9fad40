#pragma once

#include <cstdint>
#include <span>

#include "model/kernels/gemm.h"

namespace qeval::model {

/// c [m, n] (+)= a [m, 2 · pairs] · b, with operands rounded to bfloat16 and float32 sums. A word holds two
/// neighbours of the inner dimension, the first in its lower half. B comes in panels of kBf16Panel columns,
/// [pairs, kBf16Panel] words each; the last one is padded. Every element of C is one chain over the pairs in
/// ascending order, so the bits do not depend on m, n or tiles.
struct Bf16Gemm {
  int64_t m = 0, n = 0, pairs = 0;
  const uint32_t* a = nullptr;
  int64_t lda = 0;  ///< words
  const uint32_t* b = nullptr;
  float* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};
inline constexpr int64_t kBf16Panel = 32;

using Bf16Kernel = void (*)(const Bf16Gemm&);

/// The product by this CPU's bfloat16 dot products (AVX512_BF16: vdpbf16ps, which takes denormals as zeros),
/// or null where it has none or QEVAL_CPU names another path.
Bf16Kernel bf16_kernel();

/// n values as bfloat16, rounded half to even; NaN stays NaN. An odd n is padded with a zero.
void narrow_bf16(const float* x, int64_t n, uint16_t* out);

/// As gemm.h's multiply_block and multiply, with operands rounded to bfloat16.
void multiply_block_bf16(Bf16Kernel kernel, const WeightView& w, int64_t first, int64_t count, const float* a,
                         int64_t lda, int64_t m, float* c, int64_t ldc);
void multiply_bf16(Bf16Kernel kernel, const float* a, int64_t m, std::span<const Product> products);
void multiply_rows_bf16(Bf16Kernel kernel, std::span<const RowsProduct> products);

/// Whether `w`'s product with some hundred rows takes less time by `kernel` than in float32 here and now.
/// Runs each a few times: a fraction of a second.
bool bf16_is_faster(Bf16Kernel kernel, const WeightView& w);

/// The kernel that bf16_kernel() answers where the CPU runs it.
void bf16_gemm_avx512(const Bf16Gemm& g);

}  // namespace qeval::model
