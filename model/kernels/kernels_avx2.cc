#include "model/kernels/kernels_impl.h"

namespace qeval::model {

const Kernels& kernels_avx2() {
  static constexpr Kernels table = make_kernels(CpuPath::avx2);
  return table;
}

}  // namespace qeval::model
