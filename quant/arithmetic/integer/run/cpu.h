#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace qeval::quant {

/// The instruction sets that integer kernels are written for, weakest first.
enum class IntegerCpu : uint8_t { portable, avx2, avx_vnni, avx512, avx512_vnni };
inline constexpr std::array kIntegerCpus{IntegerCpu::portable, IntegerCpu::avx2, IntegerCpu::avx_vnni,
                                         IntegerCpu::avx512, IntegerCpu::avx512_vnni};

std::string_view name(IntegerCpu cpu);
bool cpu_supports(IntegerCpu cpu);

/// The best of the path that model::cpu_path() chose: QEVAL_CPU=avx2 or avx512 rules nothing stronger in,
/// and their VNNI forms only where the variable is not set.
IntegerCpu integer_cpu();

}  // namespace qeval::quant
