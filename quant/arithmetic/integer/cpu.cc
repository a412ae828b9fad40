#include "model/kernels/cpu.h"

#include "model/kernels/bf16.h"
#include "quant/arithmetic/integer/run/cpu.h"

namespace qeval::quant {

using model::CpuFeature;
using model::CpuPath;

std::string_view name(IntegerCpu cpu) {
  switch (cpu) {
    case IntegerCpu::portable:
      return "portable";
    case IntegerCpu::avx2:
      return "avx2";
    case IntegerCpu::avx_vnni:
      return "avx-vnni";
    case IntegerCpu::avx512:
      return "avx512";
    case IntegerCpu::avx512_vnni:
      return "avx512-vnni";
    case IntegerCpu::avx512_amx:
      return "avx512-amx";
    case IntegerCpu::neon:
      return "neon";
    case IntegerCpu::neon_dot:
      return "neon-dot";
    case IntegerCpu::neon_i8mm:
      return "neon-i8mm";
  }
  return "?";
}

bool cpu_supports(IntegerCpu cpu) {
  switch (cpu) {
    case IntegerCpu::portable:
      return true;
    case IntegerCpu::avx2:
      return model::cpu_supports(CpuPath::avx2);
    case IntegerCpu::avx_vnni:
      return model::cpu_supports(CpuPath::avx2) && model::cpu_has(CpuFeature::avx_vnni);
    case IntegerCpu::avx512:
      return model::cpu_supports(CpuPath::avx512);
    case IntegerCpu::avx512_vnni:
      return model::cpu_supports(CpuPath::avx512) && model::cpu_has(CpuFeature::avx512_vnni);
    case IntegerCpu::avx512_amx:
      return cpu_supports(IntegerCpu::avx512_vnni) && model::cpu_has(CpuFeature::amx_int8);
    case IntegerCpu::neon:
      return model::cpu_supports(CpuPath::neon);
    case IntegerCpu::neon_dot:
      return model::cpu_has(CpuFeature::dot_product);
    case IntegerCpu::neon_i8mm:
      return model::cpu_has(CpuFeature::int8_matrix);
  }
  return false;
}

IntegerCpu integer_cpu() {
  const auto unless_forced = [&](IntegerCpu better, IntegerCpu otherwise) {
    return !model::cpu_path_is_forced() && cpu_supports(better) ? better : otherwise;
  };
  switch (model::cpu_path()) {
    case CpuPath::portable:
      return IntegerCpu::portable;
    case CpuPath::avx2:
      return unless_forced(IntegerCpu::avx_vnni, IntegerCpu::avx2);
    case CpuPath::avx512:
      return unless_forced(IntegerCpu::avx512_amx,
                           unless_forced(IntegerCpu::avx512_vnni, IntegerCpu::avx512));
    case CpuPath::neon:
      return unless_forced(IntegerCpu::neon_i8mm, unless_forced(IntegerCpu::neon_dot, IntegerCpu::neon));
  }
  return IntegerCpu::portable;
}

std::string kernels_in_force() {
  const model::Bf16Kernel bf16 = model::bf16_kernel();
  return std::string(model::name(model::cpu_path())) + ", integers " + std::string(name(integer_cpu())) +
         (bf16 == nullptr ? "" : ", bfloat16 " + std::string(bf16->name));
}

}  // namespace qeval::quant
