#include "quant/grid/kernels/quant_kernels_impl.h"

namespace qeval::quant {

const QuantKernels& quant_kernels_avx512() {
  static constexpr QuantKernels table = make_quant_kernels(model::CpuPath::avx512);
  return table;
}

}  // namespace qeval::quant
