#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& block_kernels_avx512_vnni() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::avx512_vnni);
  return table;
}

}  // namespace qeval::quant
