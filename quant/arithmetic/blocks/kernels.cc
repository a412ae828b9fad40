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
