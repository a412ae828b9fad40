#include "quant/grid/kernels/quant_kernels.h"

namespace qeval::quant {

const QuantKernels& quant_kernels(model::CpuPath path) {
  switch (path) {
#if defined(__x86_64__)
    case model::CpuPath::avx512:
      return quant_kernels_avx512();
    case model::CpuPath::avx2:
      return quant_kernels_avx2();
#elif defined(__aarch64__)
    case model::CpuPath::neon:
      return quant_kernels_neon();
#endif
    default:
      return quant_kernels_portable();
  }
}

const QuantKernels& quant_kernels() {
  static const QuantKernels& chosen = quant_kernels(model::cpu_path());
  return chosen;
}

}  // namespace qeval::quant
