#include "quant/integer/run/kernels.h"

namespace qeval::quant {

const IntegerKernels& integer_kernels(model::CpuPath path) {
  switch (path) {
    case model::CpuPath::avx512:
      return integer_kernels_avx512();
    case model::CpuPath::avx2:
      return integer_kernels_avx2();
    case model::CpuPath::portable:
      break;
  }
  return integer_kernels_portable();
}

const IntegerKernels& integer_kernels() {
  static const IntegerKernels& chosen = integer_kernels(model::cpu_path());
  return chosen;
}

}  // namespace qeval::quant
