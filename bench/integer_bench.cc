// Integer matrix products against the peak of this machine's integer multipliers, in one run: the ratio of
// the two "MAC/s" counters is the kernel's efficiency.

#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "quant/integer/run/kernels.h"

namespace qeval::quant {
namespace {

#ifdef __x86_64__
/// Multiply-adds of registers only: 12 chains of vpmaddwd and vpaddd, as the narrow kernel's.
template <size_t... CHAIN>
__attribute__((target("avx2"))) int32_t peak_avx2(int64_t steps, std::index_sequence<CHAIN...>) {
  __m256i sums[] = {(static_cast<void>(CHAIN), _mm256_setzero_si256())...};
  // A chain multiplies its own sum: nothing can be computed once for all steps or chains.
  const __m256i b = _mm256_set1_epi16(5);
  for (int64_t i = 0; i < steps; ++i) {
    ((sums[CHAIN] = _mm256_add_epi32(sums[CHAIN], _mm256_madd_epi16(sums[CHAIN], b))), ...);
  }
  __m256i total = _mm256_setzero_si256();
  ((total = _mm256_add_epi32(total, sums[CHAIN])), ...);
  return _mm256_extract_epi32(total, 0);
}

void BM_PeakAvx2(benchmark::State& state) {
  if (!model::cpu_supports(model::CpuPath::avx2)) {
    state.SkipWithError("this CPU lacks AVX2");
    return;
  }
  constexpr int64_t kSteps = 100000;
  for (auto _ : state) benchmark::DoNotOptimize(peak_avx2(kSteps, std::make_index_sequence<12>()));
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
    (wide ? kernel.gemm_wide : kernel.gemm_narrow)(gemm);
    benchmark::ClobberMemory();
  }
  state.counters["MAC/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * m * n * k), benchmark::Counter::kIsRate);
}

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
