#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& block_kernels_neon_i8mm() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::neon_i8mm);
  return table;
}

}  // namespace qeval::quant
