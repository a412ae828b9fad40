#include "quant/methods/learn/train_kernels_impl.h"

namespace qeval::quant {

const TrainKernels<float>& train_kernels_neon() {
  static constexpr TrainKernels<float> table = make_train_kernels<float>();
  return table;
}

}  // namespace qeval::quant
