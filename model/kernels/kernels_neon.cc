#include "model/kernels/kernels_impl.h"

namespace qeval::model {

const Kernels& kernels_neon() {
  static constexpr Kernels table = make_kernels(CpuPath::neon);
  return table;
}

}  // namespace qeval::model
