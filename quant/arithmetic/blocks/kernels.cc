#include "quant/arithmetic/blocks/kernels.h"

namespace qeval::quant {

const BlockKernels& block_kernels(IntegerCpu cpu) {
  switch (cpu) {
#ifdef __x86_64__
    case IntegerCpu::avx512_amx:
    case IntegerCpu::avx512_vnni:
      return block_kernels_avx512_vnni();
    case IntegerCpu::avx512:
      return block_kernels_avx512();
    case IntegerCpu::avx_vnni:
      return block_kernels_avx_vnni();
    case IntegerCpu::avx2:
      return block_kernels_avx2();
#elif defined(__aarch64__)
    case IntegerCpu::neon_i8mm:
      return block_kernels_neon_i8mm();
    case IntegerCpu::neon_dot:
      return block_kernels_neon_dot();
    case IntegerCpu::neon:
      return block_kernels_neon();
#endif
    default:
      return block_kernels_portable();
  }
}

const BlockKernels& block_kernels() {
  static const BlockKernels& chosen = block_kernels(integer_cpu());
  return chosen;
}

}  // namespace qeval::quant
