#include "model/kernels/kernels.h"

namespace qeval::model {

const Kernels& kernels(CpuPath path) {
  switch (path) {
    case CpuPath::avx512:
      return kernels_avx512();
    case CpuPath::avx2:
      return kernels_avx2();
    case CpuPath::portable:
      break;
  }
  return kernels_portable();
}

const Kernels& kernels() {
  static const Kernels& chosen = kernels(cpu_path());
  return chosen;
}

}  // namespace qeval::model
