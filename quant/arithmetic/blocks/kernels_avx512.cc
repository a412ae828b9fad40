#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& block_kernels_avx512() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::avx512);
  return table;
}

}  // namespace qeval::quant
