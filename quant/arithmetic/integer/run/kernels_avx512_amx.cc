#include "quant/arithmetic/integer/run/kernels_impl.h"

namespace qeval::quant {

const IntegerKernels& integer_kernels_avx512_amx() {
  static constexpr IntegerKernels table = make_integer_kernels(IntegerCpu::avx512_amx);
  return table;
}

}  // namespace qeval::quant
