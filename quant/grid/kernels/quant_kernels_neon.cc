#include "quant/grid/kernels/quant_kernels_impl.h"

namespace qeval::quant {

const QuantKernels& quant_kernels_neon() {
  static constexpr QuantKernels table = make_quant_kernels(model::CpuPath::neon);
  return table;
}

}  // namespace qeval::quant
