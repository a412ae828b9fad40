#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qeval::model {

/// The instruction sets that kernels are written for: of x86-64, weakest first, and of AArch64. A program has
/// the kernels of its own architecture.
enum class CpuPath : uint8_t { portable, avx2, avx512, neon };

std::string_view name(CpuPath path);

/// The best path of this CPU, or the one the environment variable QEVAL_CPU names (portable, avx2, avx512; on
/// AArch64 portable, neon). A name that is unknown or that the CPU lacks is an Error: nothing falls back by
/// itself. Decided once per process.
CpuPath cpu_path();
/// Whether the variable names it: then nothing beside the path's own instructions is used by itself.
bool cpu_path_is_forced();

/// Whether this CPU can run `path`.
bool cpu_supports(CpuPath path);

/// What CPUs of x86-64 or of AArch64 have besides, for single kernels. False on the other architecture. AMX
/// only where the operating system lets this process use its tiles: Linux 5.16 or later, asked once, which
/// refuses where a thread has an alternate signal stack too small for them, and such stacks from then on.
enum class CpuFeature : uint8_t {
  avx_vnni,
  avx512_vnni,
  avx512_bf16,
  amx_int8,
  amx_bf16,
  dot_product,
  int8_matrix
};
bool cpu_has(CpuFeature feature);

/// The processor's model name, for reports.
std::string cpu_name();

}  // namespace qeval::model
