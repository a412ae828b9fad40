// Integer matrix products against the peak of this machine's integer multipliers, in one run: the ratio of
// the two "MAC/s" counters is the kernel's efficiency.

#include <algorithm>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/parallel.h"
#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {
namespace {

#ifdef __x86_64__
/// 12 chains of vpmaddwd and vpaddd on registers, as the narrow kernel's without its loads. In assembly: a
/// compiler sees that the products are all the same.
void peak_avx2(int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) {
    asm volatile(
        ".irp chain, 0,1,2,3,4,5,6,7,8,9,10,11\n"
        "vpmaddwd %%ymm12, %%ymm13, %%ymm14\n"
        "vpaddd %%ymm14, %%ymm\\chain, %%ymm\\chain\n"
        ".endr\n"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14");
  }
  asm volatile("vzeroupper");
}

/// The same with vpmaddubsw and 16-bit sums: twice the products, which only weights that cannot saturate may
/// use.
void peak_avx2_bytes(int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) {
    asm volatile(
        ".irp chain, 0,1,2,3,4,5,6,7,8,9,10,11\n"
        "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n"
        "vpaddw %%ymm14, %%ymm\\chain, %%ymm\\chain\n"
        ".endr\n"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14");
  }
  asm volatile("vzeroupper");
}

void BM_PeakAvx2Bytes(benchmark::State& state) {
  if (!cpu_supports(IntegerCpu::avx2)) {
    state.SkipWithError("this CPU lacks AVX2");
    return;
  }
  constexpr int64_t kSteps = 100000;
  for (auto _ : state) {
    peak_avx2_bytes(kSteps);
  }
  state.counters["MAC/s"] = benchmark::Counter(static_cast<double>(state.iterations() * kSteps * 12 * 32),
                                               benchmark::Counter::kIsRate);
}
BENCHMARK(BM_PeakAvx2Bytes);

void BM_PeakAvx2(benchmark::State& state) {
  if (!cpu_supports(IntegerCpu::avx2)) {
    state.SkipWithError("this CPU lacks AVX2");
    return;
  }
  constexpr int64_t kSteps = 100000;
  for (auto _ : state) {
    peak_avx2(kSteps);
  }
  state.counters["MAC/s"] = benchmark::Counter(static_cast<double>(state.iterations() * kSteps * 12 * 16),
                                               benchmark::Counter::kIsRate);
}
BENCHMARK(BM_PeakAvx2);
#endif

void run(benchmark::State& state, bool wide) {
  const int64_t m = state.range(0);
  const int64_t n = 64;  // the columns of a task
  const int64_t k = state.range(1);
  const std::vector<int16_t> a(static_cast<size_t>(m * k), 17);
  const std::vector<int8_t> b(static_cast<size_t>(n * k), -5);
  std::vector<int64_t> c(static_cast<size_t>(m * n));
  const IntegerKernels& kernel = integer_kernels();
  for (auto _ : state) {
    const IntegerGemm gemm{.m = m,
                           .n = n,
                           .k = k,
                           .a = a.data(),
                           .lda = k,
                           .b = b.data(),
                           .panel_stride = k * kPanel,
                           .c = c.data(),
                           .ldc = n};
    (wide ? kernel.gemm_modular : kernel.gemm_narrow)(gemm);
    benchmark::ClobberMemory();
  }
  state.counters["MAC/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * m * n * k), benchmark::Counter::kIsRate);
}

/// 8-bit codes in quads: state.range(2) is the group.
void BM_Quads(benchmark::State& state, IntegerCpu cpu) {
  if (!cpu_supports(cpu)) {
    state.SkipWithError("this CPU lacks it");
    return;
  }
  const int64_t m = state.range(0);
  const int64_t panels = 4;
  const int64_t k = state.range(1);
  // Aligned as a model's are: tiles and vectors that straddle lines take up to twice the time.
  AlignedBuffer a(static_cast<size_t>(m * k)), b(static_cast<size_t>(panels * kPanel * k));
  AlignedBuffer c(static_cast<size_t>(m * panels * kPanel) * sizeof(int32_t));
  std::fill_n(a.as<uint8_t>(), m * k, uint8_t{17});
  std::fill_n(b.as<int8_t>(), panels * kPanel * k, int8_t{-5});
  for (auto _ : state) {
    integer_kernels(cpu).gemm_quads({.m = m,
                                     .panels = panels,
                                     .a = a.as<uint8_t>(),
                                     .lda = k,
                                     .b = b.as<int8_t>(),
                                     .entries = k / 4,
                                     .group = static_cast<int32_t>(state.range(2)),
                                     .c = c.as<int32_t>(),
                                     .ldc = panels * kPanel});
    benchmark::ClobberMemory();
  }
  state.counters["MAC/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * m * panels * kPanel * k), benchmark::Counter::kIsRate);
}
// What the kernels in force are measured against where those are AMX's.
BENCHMARK_CAPTURE(BM_Quads, vnni, IntegerCpu::avx512_vnni)
    ->Args({48, 576, 1})
    ->Args({8, 576, 1})
    ->Args({2, 576, 1})
    ->Args({1, 576, 1});
BENCHMARK_CAPTURE(BM_Quads, here, integer_cpu())
    ->Args({48, 576, 4})
    ->Args({48, 576, 2})
    ->Args({48, 1536, 2})
    ->Args({48, 1536, 1})
    ->Args({128, 576, 2})
    ->Args({16, 576, 2})
    ->Args({8, 576, 2})
    ->Args({4, 576, 2})
    ->Args({2, 576, 2})
    ->Args({1, 576, 2});

void BM_Narrow(benchmark::State& state) {
  run(state, false);
}
void BM_Wide(benchmark::State& state) {
  run(state, true);
}
BENCHMARK(BM_Narrow)->Args({48, 576})->Args({48, 1536})->Args({1, 576});
BENCHMARK(BM_Wide)->Args({48, 576})->Args({48, 1536});

}  // namespace
}  // namespace qeval::quant
