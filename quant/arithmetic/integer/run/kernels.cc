#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {

const IntegerKernels& integer_kernels(IntegerCpu cpu) {
  switch (cpu) {
    case IntegerCpu::avx512_vnni:
      return integer_kernels_avx512_vnni();
    case IntegerCpu::avx512:
      return integer_kernels_avx512();
    case IntegerCpu::avx_vnni:
      return integer_kernels_avx_vnni();
    case IntegerCpu::avx2:
      return integer_kernels_avx2();
    case IntegerCpu::portable:
      break;
  }
  return integer_kernels_portable();
}

const IntegerKernels& integer_kernels() {
  static const IntegerKernels& chosen = integer_kernels(integer_cpu());
  return chosen;
}

}  // namespace qeval::quant
