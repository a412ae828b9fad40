#include "model/kernels/cpu.h"

#include <array>
#include <cstdlib>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "base/error.h"

namespace qeval::model {
namespace {

#if defined(__x86_64__)
constexpr std::array kPaths{CpuPath::portable, CpuPath::avx2, CpuPath::avx512};
#elif defined(__aarch64__)
constexpr std::array kPaths{CpuPath::portable, CpuPath::neon};
#else
constexpr std::array kPaths{CpuPath::portable};
#endif

/// What QEVAL_CPU says, or null.
const char* wanted_path() {
  const char* wanted = std::getenv("QEVAL_CPU");
  return wanted != nullptr && *wanted != '\0' ? wanted : nullptr;
}

CpuPath choose_path() {
  if (const char* wanted = wanted_path()) {
    std::string accepted;
    for (const CpuPath path : kPaths) {
      accepted.append(accepted.empty() ? "" : ", ").append(name(path));
      if (name(path) != wanted) continue;
      if (!cpu_supports(path))
        fail("QEVAL_CPU={}: this CPU ({}) lacks it; unset the variable", wanted, cpu_name());
      return path;
    }
    fail("QEVAL_CPU={}: unknown path; accepted: {}", printable(wanted), accepted);
  }
  CpuPath best = CpuPath::portable;
  for (const CpuPath path : kPaths) {
    if (cpu_supports(path)) best = path;
  }
  return best;
}

#if defined(__x86_64__)
/// Asked of the CPU itself: not every compiler's __builtin_cpu_supports knows the name.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
bool has_avx_vnni() {
  constexpr unsigned kLeaf = 7, kSubleaf = 1, kBit = 1U << 4;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(kLeaf, kSubleaf, &eax, &ebx, &ecx, &edx) != 0 && (eax & kBit) != 0;
}
/// Whether the CPU has AMX's tiles and what bit `feature` of the same leaf says, and the kernel has given
/// this process the tiles' registers, of which threads hold 8 KiB.
bool has_amx(unsigned feature) {
#if defined(__linux__)
  constexpr unsigned kLeaf = 7, kTiles = 1U << 24;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(kLeaf, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTiles) == 0 || (edx & (1U << feature)) == 0) return false;
  // Of Linux's asm/prctl.h and its list of extended states, by their numbers: older headers lack the names.
  constexpr long kRequestState = 0x1023, kTileData = 18;
  static const bool permitted = ::syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
  return permitted;
#else
  static_cast<void>(feature);
  return false;
#endif
}
#elif defined(__APPLE__)
bool has(const char* feature) {
  int answer = 0;
  size_t size = sizeof answer;
  return ::sysctlbyname(feature, &answer, &size, nullptr, 0) == 0 && answer != 0;
}
#endif

}  // namespace

std::string_view name(CpuPath path) {
  switch (path) {
    case CpuPath::portable:
      return "portable";
    case CpuPath::avx2:
      return "avx2";
    case CpuPath::avx512:
      return "avx512";
    case CpuPath::neon:
      return "neon";
  }
  return "?";
}

bool cpu_supports(CpuPath path) {
#if defined(__x86_64__)
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
    case CpuPath::neon:
      return false;
  }
  return false;
#elif defined(__aarch64__)
  return path == CpuPath::portable || path == CpuPath::neon;  // part of the architecture
#else
  return path == CpuPath::portable;
#endif
}

bool cpu_has(CpuFeature feature) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (feature) {
    case CpuFeature::avx_vnni:
      return has_avx_vnni();
    case CpuFeature::avx512_vnni:
      return __builtin_cpu_supports("avx512vnni");
    case CpuFeature::avx512_bf16:
      return __builtin_cpu_supports("avx512bf16");
    case CpuFeature::amx_int8:
      return has_amx(25);
    case CpuFeature::amx_bf16:
      return has_amx(22);
    case CpuFeature::dot_product:
    case CpuFeature::int8_matrix:
      break;
  }
#elif defined(__aarch64__) && defined(__APPLE__)
  if (feature == CpuFeature::dot_product) return has("hw.optional.arm.FEAT_DotProd");
  if (feature == CpuFeature::int8_matrix) return has("hw.optional.arm.FEAT_I8MM");
#elif defined(__aarch64__)
  // Of Linux's asm/hwcap.h, by their numbers: older headers lack the names.
  constexpr unsigned long kDotProduct = 1UL << 20, kInt8Matrix = 1UL << 13;
  if (feature == CpuFeature::dot_product) return (::getauxval(AT_HWCAP) & kDotProduct) != 0;
  if (feature == CpuFeature::int8_matrix) return (::getauxval(AT_HWCAP2) & kInt8Matrix) != 0;
#endif
  return false;
}

CpuPath cpu_path() {
  static const CpuPath path = choose_path();
  return path;
}

bool cpu_path_is_forced() {
  static const bool forced = wanted_path() != nullptr;
  return forced;
}

std::string cpu_name() {
#if defined(__APPLE__)
  std::string text(256, '\0');
  size_t size = text.size();
  if (::sysctlbyname("machdep.cpu.brand_string", text.data(), &size, nullptr, 0) != 0) return "unknown";
  return text.c_str();
#else
  std::ifstream file("/proc/cpuinfo");
  std::string implementer, part;
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    if (line.starts_with("model name")) return line.substr(colon + 2);
    if (line.starts_with("CPU implementer")) implementer = line.substr(colon + 2);
    if (line.starts_with("CPU part")) part = line.substr(colon + 2);
  }
  // AArch64's kernel names its CPUs by numbers alone.
  return part.empty() ? "unknown" : "implementer " + implementer + ", part " + part;
#endif
}

}  // namespace qeval::model
