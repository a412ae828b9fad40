#include "quant/arithmetic/integer/run/kernels_impl.h"

namespace qeval::quant {

const IntegerKernels& integer_kernels_neon() {
  static constexpr IntegerKernels table = make_integer_kernels(IntegerCpu::neon);
  return table;
}

}  // namespace qeval::quant
