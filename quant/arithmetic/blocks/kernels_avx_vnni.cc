#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& block_kernels_avx_vnni() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::avx_vnni);
  return table;
}

}  // namespace qeval::quant
