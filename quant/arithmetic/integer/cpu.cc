#include "model/kernels/cpu.h"

#include <cstdlib>

#include <cpuid.h>

#include "quant/arithmetic/integer/run/cpu.h"

namespace qeval::quant {

using model::CpuPath;

namespace {

/// Asked of the CPU itself: not every compiler's __builtin_cpu_supports knows the name.
bool has_avx_vnni() {
  constexpr unsigned kLeaf = 7, kSubleaf = 1, kBit = 1U << 4;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(kLeaf, kSubleaf, &eax, &ebx, &ecx, &edx) != 0 && (eax & kBit) != 0;
}

}  // namespace

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
      return model::cpu_supports(CpuPath::avx2) && has_avx_vnni();
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
