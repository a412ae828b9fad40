#include "quant/arithmetic/integer/run/kernels_impl.h"

namespace qeval::quant {

const IntegerKernels& integer_kernels_neon_i8mm() {
  static constexpr IntegerKernels table = make_integer_kernels(IntegerCpu::neon_i8mm);
  return table;
}

}  // namespace qeval::quant
