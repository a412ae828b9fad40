#pragma once

#include <vector>

#include "quant/arithmetic/blocks/kernels.h"
#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {

/// The kernels of CPUs that have AVX-512 or VNNI, their instructions emulated; they need AVX2.
const IntegerKernels& emulated_kernels_avx_vnni();
const IntegerKernels& emulated_kernels_avx512();
const IntegerKernels& emulated_kernels_avx512_vnni();
const IntegerKernels& emulated_kernels_avx512_amx();
const BlockKernels& emulated_block_kernels_avx_vnni();

/// Those that this CPU can emulate.
inline std::vector<const IntegerKernels*> emulated_kernels() {
#if defined(__x86_64__)
  if (cpu_supports(IntegerCpu::avx2))
    return {&emulated_kernels_avx_vnni(), &emulated_kernels_avx512(), &emulated_kernels_avx512_vnni(),
            &emulated_kernels_avx512_amx()};
#endif
  return {};
}
inline std::vector<const BlockKernels*> emulated_block_kernels() {
#if defined(__x86_64__)
  if (cpu_supports(IntegerCpu::avx2)) return {&emulated_block_kernels_avx_vnni()};
#endif
  return {};
}

}  // namespace qeval::quant
