#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace qeval::quant {

/// The instruction sets that integer kernels are written for: of x86-64, weakest first, and of AArch64.
enum class IntegerCpu : uint8_t {
  portable,
  avx2,
  avx_vnni,
  avx512,
  avx512_vnni,
  avx512_amx,  ///< with tiles of bytes beside VNNI
  neon,
  neon_dot,   ///< with dot products of bytes of one sign (asimddp)
  neon_i8mm,  ///< with those of unsigned by signed bytes (i8mm)
};
inline constexpr std::array kIntegerCpus{
    IntegerCpu::portable, IntegerCpu::avx2,        IntegerCpu::avx_vnni,
    IntegerCpu::avx512,   IntegerCpu::avx512_vnni, IntegerCpu::avx512_amx,
    IntegerCpu::neon,     IntegerCpu::neon_dot,    IntegerCpu::neon_i8mm};

std::string_view name(IntegerCpu cpu);
bool cpu_supports(IntegerCpu cpu);

/// The best of the path that model::cpu_path() chose: QEVAL_CPU=avx2, avx512 or neon rules nothing stronger
/// in, and their dot products and tiles only where the variable is not set.
IntegerCpu integer_cpu();

/// "avx512, integers avx512-vnni, bfloat16 avx512-bf16", for reports: the kernels of this process.
std::string kernels_in_force();

}  // namespace qeval::quant
