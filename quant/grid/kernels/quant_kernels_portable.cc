#include "quant/grid/kernels/quant_kernels_impl.h"

namespace qeval::quant {

const QuantKernels& quant_kernels_portable() {
  static constexpr QuantKernels table = make_quant_kernels(model::CpuPath::portable);
  return table;
}

}  // namespace qeval::quant
