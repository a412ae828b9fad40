#include "quant/arithmetic/integer/run/kernels.h"

#include "base/parallel.h"

namespace qeval::quant {

const IntegerKernels& integer_kernels(IntegerCpu cpu) {
  switch (cpu) {
#if defined(__x86_64__)
    case IntegerCpu::avx512_amx:
      return integer_kernels_avx512_amx();
    case IntegerCpu::avx512_vnni:
      return integer_kernels_avx512_vnni();
    case IntegerCpu::avx512:
      return integer_kernels_avx512();
    case IntegerCpu::avx_vnni:
      return integer_kernels_avx_vnni();
    case IntegerCpu::avx2:
      return integer_kernels_avx2();
#elif defined(__aarch64__)
    case IntegerCpu::neon_i8mm:
      return integer_kernels_neon_i8mm();
    case IntegerCpu::neon_dot:
      return integer_kernels_neon_dot();
    case IntegerCpu::neon:
      return integer_kernels_neon();
#endif
    default:
      return integer_kernels_portable();
  }
}

uint8_t* gemm_scratch(int64_t size) {
  thread_local AlignedBuffer bytes;
  bytes.resize(static_cast<size_t>(size));
  return bytes.as<uint8_t>();
}

const IntegerKernels& integer_kernels() {
  static const IntegerKernels& chosen = integer_kernels(integer_cpu());
  return chosen;
}

}  // namespace qeval::quant
