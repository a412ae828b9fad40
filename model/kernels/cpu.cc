#include "model/kernels/cpu.h"

#include <array>
#include <cstdlib>
#include <fstream>

#include <cpuid.h>

#include "base/error.h"

namespace qeval::model {
namespace {

constexpr std::array<CpuPath, 3> kPaths{CpuPath::portable, CpuPath::avx2, CpuPath::avx512};

CpuPath choose_path() {
  if (const char* wanted = std::getenv("QEVAL_CPU"); wanted != nullptr && *wanted != '\0') {
    for (const CpuPath path : kPaths) {
      if (name(path) != wanted) continue;
      if (!cpu_supports(path))
        fail("QEVAL_CPU={}: this CPU ({}) lacks it; unset the variable", wanted, cpu_name());
      return path;
    }
    fail("QEVAL_CPU={}: unknown path; accepted: portable, avx2, avx512", printable(wanted));
  }
  CpuPath best = CpuPath::portable;
  for (const CpuPath path : kPaths) {
    if (cpu_supports(path)) best = path;
  }
  return best;
}

/// Asked of the CPU itself: not every compiler's __builtin_cpu_supports knows the name.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

std::string_view name(CpuPath path) {
  switch (path) {
    case CpuPath::portable:
      return "portable";
    case CpuPath::avx2:
      return "avx2";
    case CpuPath::avx512:
      return "avx512";
  }
  return "?";
}

bool cpu_supports(CpuPath path) {
  __builtin_cpu_init();
  switch (path) {
    case CpuPath::portable:
      return true;
    case CpuPath::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case CpuPath::avx512:
      return cpu_supports(CpuPath::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
  }
  return false;
}

CpuPath cpu_path() {
  static const CpuPath path = choose_path();
  return path;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      const size_t colon = line.find(':');
      if (colon != std::string::npos && colon + 2 <= line.size()) return line.substr(colon + 2);
    }
  }
  return "unknown";
}

}  // namespace qeval::model
