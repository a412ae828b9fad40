#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qeval::model {

/// The instruction sets that kernels are written for, weakest first.
enum class CpuPath : uint8_t { portable, avx2, avx512 };

std::string_view name(CpuPath path);

/// The best path of this CPU, or the one the environment variable QEVAL_CPU names (portable, avx2, avx512). A
/// name that is unknown or that the CPU lacks is an Error: nothing falls back by itself. Decided once per
/// process.
CpuPath cpu_path();

/// Whether this CPU can run `path`.
bool cpu_supports(CpuPath path);

/// The processor's model name, for reports.
std::string cpu_name();

}  // namespace qeval::model
