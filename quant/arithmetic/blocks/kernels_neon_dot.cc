#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& block_kernels_neon_dot() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::neon_dot);
  return table;
}

}  // namespace qeval::quant
