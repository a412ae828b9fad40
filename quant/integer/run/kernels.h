#pragma once

#include <cstdint>

#include "model/kernels/cpu.h"

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

/// The integer kernels of one CPU path: the same integers from every path.
struct IntegerKernels {
  model::CpuPath path;
  /// A in 0 … 255, B int8_t, C int32_t; k ≤ 65536, so that no sum overflows.
  void (*gemm_narrow)(const IntegerGemm&);
  /// A any int16_t, B int8_t, C int64_t.
  void (*gemm_wide)(const IntegerGemm&);
  /// A any int16_t, B int16_t, C int64_t.
  void (*gemm_wide16)(const IntegerGemm&);
};

const IntegerKernels& integer_kernels();
const IntegerKernels& integer_kernels(model::CpuPath path);

const IntegerKernels& integer_kernels_portable();
const IntegerKernels& integer_kernels_avx2();
const IntegerKernels& integer_kernels_avx512();

}  // namespace qeval::quant
