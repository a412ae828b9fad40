#include "quant/grid/kernels/quant_kernels_impl.h"

namespace qeval::quant {

const QuantKernels& quant_kernels_avx2() {
  static constexpr QuantKernels table = make_quant_kernels(model::CpuPath::avx2);
  return table;
}

}  // namespace qeval::quant
