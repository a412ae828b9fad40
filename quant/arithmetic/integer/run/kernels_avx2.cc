#include "quant/arithmetic/integer/run/kernels_impl.h"

namespace qeval::quant {

const IntegerKernels& integer_kernels_avx2() {
  static constexpr IntegerKernels table = make_integer_kernels(IntegerCpu::avx2);
  return table;
}

}  // namespace qeval::quant
