#include "model/kernels/kernels_impl.h"

namespace qeval::model {

const Kernels& kernels_portable() {
  static constexpr Kernels table = make_kernels(CpuPath::portable);
  return table;
}

}  // namespace qeval::model
