#include "model/kernels/kernels.h"

namespace qeval::model {

const Kernels& kernels(CpuPath path) {
  switch (path) {
#if defined(__x86_64__)
    case CpuPath::avx512:
      return kernels_avx512();
    case CpuPath::avx2:
      return kernels_avx2();
#elif defined(__aarch64__)
    case CpuPath::neon:
      return kernels_neon();
#endif
    default:
      return kernels_portable();
  }
}

const Kernels& kernels() {
  static const Kernels& chosen = kernels(cpu_path());
  return chosen;
}

}  // namespace qeval::model
