#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& block_kernels_portable() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::portable);
  return table;
}

}  // namespace qeval::quant
