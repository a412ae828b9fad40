#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& block_kernels_avx2() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::avx2);
  return table;
}

}  // namespace qeval::quant
