#pragma once

#include <cstdint>

#include "model/kernels/cpu.h"
#include "quant/integer/integer_model.h"

namespace qeval::quant {

/// C [m, n] (+)= A [m, k] · B [k, n] in integers, exactly. A holds int16_t codes; B panels of kPanel columns,
/// [k / 2, kPanel, 2] each, `panel_stride` codes apart. An odd k reads nothing of A beyond it.
struct IntegerGemm {
  int64_t m = 0, n = 0, k = 0;
  const int16_t* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t panel_stride = 0;
  void* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};

/// Sums to codes, where 32 bits hold every sum (FastRescale):
/// out[j] = codes of sums[j] + base + constant[j] − weight[j] · weight_factor.
struct Requantization {
  int64_t n = 0;
  const int32_t* sums = nullptr;
  int32_t base = 0;
  const int32_t* constant = nullptr;  ///< [n] or null
  const int32_t* weight = nullptr;    ///< [n]
  int32_t weight_factor = 0;
  FastRescaleView fast;
  bool uniform = false;  ///< one factor for all, eight times over
  CodeRange output;
  int16_t* out = nullptr;
};

/// The integer kernels of one CPU path: the same integers from every path.
struct IntegerKernels {
  model::CpuPath path;
  /// A in 0 … 255, B int8_t, C int32_t; k ≤ 65536, so that no sum overflows.
  void (*gemm_narrow)(const IntegerGemm&);
  /// A any int16_t, B int8_t, C int64_t.
  void (*gemm_wide)(const IntegerGemm&);
  /// A any int16_t, B int16_t, C int64_t.
  void (*gemm_wide16)(const IntegerGemm&);
  void (*requantize_row)(const Requantization&);
  /// powers [n ≥ 1] ← coarse[δ / 256] · fine[δ mod 256] / 2^kExpBits with δ = largest − row[i]; returns their
  /// sum.
  uint64_t (*exponentials)(const uint32_t* coarse, const uint32_t* fine, int64_t n, const int16_t* row,
                           uint32_t* powers);
  /// row [n] ← powers · reciprocal / 2^shift as codes; 32 ≤ shift ≤ 62.
  void (*shares)(const uint32_t* powers, int64_t n, uint32_t reciprocal, int32_t shift,
                 const CodeRange& codes, int16_t* row);
};

const IntegerKernels& integer_kernels();
const IntegerKernels& integer_kernels(model::CpuPath path);

const IntegerKernels& integer_kernels_portable();
const IntegerKernels& integer_kernels_avx2();
const IntegerKernels& integer_kernels_avx512();

}  // namespace qeval::quant
