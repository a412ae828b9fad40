#include "model/kernels/cpu.h"

#include <cstdlib>

#include "quant/integer/run/cpu.h"

namespace qeval::quant {

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
  }
  return "?";
}

bool cpu_supports(IntegerCpu cpu) {
  __builtin_cpu_init();
  switch (cpu) {
    case IntegerCpu::portable:
      return true;
    case IntegerCpu::avx2:
      return model::cpu_supports(CpuPath::avx2);
    case IntegerCpu::avx_vnni:
      return model::cpu_supports(CpuPath::avx2) && __builtin_cpu_supports("avxvnni");
    case IntegerCpu::avx512:
      return model::cpu_supports(CpuPath::avx512);
    case IntegerCpu::avx512_vnni:
      return model::cpu_supports(CpuPath::avx512) && __builtin_cpu_supports("avx512vnni");
  }
  return false;
}

IntegerCpu integer_cpu() {
  const char* wanted = std::getenv("QEVAL_CPU");
  const bool forced = wanted != nullptr && *wanted != '\0';
  switch (model::cpu_path()) {
    case CpuPath::portable:
      return IntegerCpu::portable;
    case CpuPath::avx2:
      return !forced && cpu_supports(IntegerCpu::avx_vnni) ? IntegerCpu::avx_vnni : IntegerCpu::avx2;
    case CpuPath::avx512:
      break;
  }
  return !forced && cpu_supports(IntegerCpu::avx512_vnni) ? IntegerCpu::avx512_vnni : IntegerCpu::avx512;
}

}  // namespace qeval::quant
