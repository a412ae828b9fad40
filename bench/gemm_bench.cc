// Float matrix product at SmolLM2's shapes against the machine's multiply-add peak, in one run.
#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "model/kernels/gemm.h"
#include "model/kernels/kernels.h"

namespace {

using qeval::model::DType;
using qeval::model::kernels;
using qeval::model::Matrix;

/// Operations of a product whose operands sit in the first-level cache: what the kernel reaches without
/// memory.
void BM_peak_in_cache(benchmark::State& state) {
  const int64_t panel = kernels().panel;
  std::vector<float> a(12 * 256, 0.5F);
  std::vector<float> b(static_cast<size_t>(panel * 256), 0.5F);
  std::vector<float> c(static_cast<size_t>(12 * panel));
  for ([[maybe_unused]] const auto _ : state) {
    kernels().gemm({.m = 12,
                    .n = panel,
                    .k = 256,
                    .a = a.data(),
                    .lda = 256,
                    .b = b.data(),
                    .ldb = panel,
                    .panel_stride = 0,
                    .c = c.data(),
                    .ldc = panel});
    benchmark::DoNotOptimize(c.data());
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2.0 * 12 * static_cast<double>(panel) * 256,
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_peak_in_cache)->ThreadRange(1, 2)->UseRealTime();

void BM_linear(benchmark::State& state) {
  const int64_t m = state.range(0);
  const int64_t n = state.range(1);
  const int64_t k = state.range(2);
  const auto type = static_cast<DType>(state.range(3));
  std::mt19937 random(1);
  std::vector<uint16_t> weights(static_cast<size_t>(n * k) * (type == DType::f32 ? 2 : 1), 0x3C00);
  std::vector<float> input(static_cast<size_t>(m * k));
  std::ranges::generate(input, [&] { return static_cast<float>(random() % 1000) * 1e-3F; });
  std::vector<float> out(static_cast<size_t>(m * n));
  const Matrix matrix{
      .name = "w",
      .rows = n,
      .cols = k,
      .stored = qeval::model::StoredWeight(type, k, reinterpret_cast<const std::byte*>(weights.data()))};
  const qeval::model::Product product{view(matrix), out.data()};
  for ([[maybe_unused]] const auto _ : state) {
    qeval::model::multiply(input.data(), m, std::span(&product, 1));
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(2.0 * static_cast<double>(m * n * k), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_linear)
    ->ArgNames({"m", "n", "k", "type"})
    ->ArgsProduct({{512, 2048}, {576}, {576}, {static_cast<long>(DType::f16)}})
    ->Args({2048, 192, 576, static_cast<long>(DType::f16)})
    ->Args({2048, 1536, 576, static_cast<long>(DType::f16)})
    ->Args({2048, 576, 1536, static_cast<long>(DType::f16)})
    ->Args({2048, 2048, 2048, static_cast<long>(DType::f32)})
    ->Args({2048, 5632, 2048, static_cast<long>(DType::f16)})
    ->UseRealTime();

/// A product on one thread with weights of every stored type, for rows of input that hide the decoding (512)
/// and for one that does not.
void BM_stored(benchmark::State& state) {
  constexpr int64_t n = 512, k = 1536;
  const auto type = static_cast<DType>(state.range(0));
  const int64_t m = state.range(1);
  const auto& type_info = qeval::model::info(type);
  const int64_t row_bytes = k / type_info.block_size * type_info.block_bytes;
  std::mt19937 random(1);
  // Bit 6 of the upper byte of an F16 scale is of its exponent: without it, none is infinite.
  std::vector<uint8_t> weights(static_cast<size_t>(n * row_bytes));
  std::ranges::generate(weights, [&] { return static_cast<uint8_t>(random() & 0xBF); });
  if (type == DType::mxfp4) {  // nor is any product subnormal
    for (size_t i = 0; i < weights.size(); i += static_cast<size_t>(type_info.block_bytes)) weights[i] = 127;
  }
  std::vector<float> input(static_cast<size_t>(m * k));
  std::ranges::generate(input, [&] { return static_cast<float>(random() % 1000) * 1e-3F; });
  std::vector<float> out(static_cast<size_t>(m * n));
  const Matrix matrix{
      .name = "w",
      .rows = n,
      .cols = k,
      .stored = qeval::model::StoredWeight(type, k, reinterpret_cast<const std::byte*>(weights.data()))};
  for ([[maybe_unused]] const auto _ : state) {
    qeval::model::multiply_block(view(matrix), 0, n, input.data(), k, m, out.data(), n);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetLabel(std::string(type_info.name));
  state.counters["GFLOP/s"] =
      benchmark::Counter(2.0 * static_cast<double>(m * n * k), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_stored)->ArgNames({"type", "m"})->Apply([](auto* stored) {
  for (const int64_t m : {512, 1}) {
    for (long type = static_cast<long>(DType::q8_0); type <= static_cast<long>(DType::nvfp4); ++type)
      stored->Args({type, m});
  }
});

}  // namespace
