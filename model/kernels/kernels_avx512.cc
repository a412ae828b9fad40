#include "model/kernels/kernels_impl.h"

namespace qeval::model {

const Kernels& kernels_avx512() {
  static constexpr Kernels table = make_kernels(CpuPath::avx512);
  return table;
}

}  // namespace qeval::model
