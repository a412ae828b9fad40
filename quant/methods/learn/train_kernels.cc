#include "quant/methods/learn/train_kernels.h"

namespace qeval::quant {

const TrainKernels<float>& train_kernels(model::CpuPath path) {
  switch (path) {
#if defined(__x86_64__)
    case model::CpuPath::avx512:
      return train_kernels_avx512();
    case model::CpuPath::avx2:
      return train_kernels_avx2();
#elif defined(__aarch64__)
    case model::CpuPath::neon:
      return train_kernels_neon();
#endif
    default:
      return train_kernels_portable();
  }
}

template <>
const TrainKernels<float>& train_kernels<float>() {
  static const TrainKernels<float>& chosen = train_kernels(model::cpu_path());
  return chosen;
}

template <>
const TrainKernels<double>& train_kernels<double>() {
  return train_kernels_smooth();
}

}  // namespace qeval::quant
