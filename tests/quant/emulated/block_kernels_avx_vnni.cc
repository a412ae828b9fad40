#define QEVAL_EMULATE_AVX_VNNI
#include "tests/quant/emulated/instructions.h"
#include "tests/quant/emulated/kernels.h"
// After what it emulates.
#include "quant/arithmetic/blocks/kernels_impl.h"

namespace qeval::quant {

const BlockKernels& emulated_block_kernels_avx_vnni() {
  static constexpr BlockKernels table = make_block_kernels(IntegerCpu::avx_vnni);
  return table;
}

}  // namespace qeval::quant
