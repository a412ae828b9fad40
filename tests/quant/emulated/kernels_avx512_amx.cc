#define QEVAL_EMULATE_AVX512
#define QEVAL_EMULATE_AVX512_VNNI
#define QEVAL_EMULATE_AMX
#include "base/parallel.h"
#include "tests/quant/emulated/instructions.h"
#include "tests/quant/emulated/kernels.h"
// After what it emulates.
#include "quant/arithmetic/integer/run/kernels_impl.h"

namespace qeval::quant {

const IntegerKernels& emulated_kernels_avx512_amx() {
  static constexpr IntegerKernels table = make_integer_kernels(IntegerCpu::avx512_amx);
  return table;
}

}  // namespace qeval::quant
