// What surrounds the matrix products: attention, and the kernels that go along rows. "items" are the
// elements of the row, or the query–key pairs of attention (each takes 4 · head_dim operations).
#include <cmath>
#include <vector>

#include <benchmark/benchmark.h>

#include "model/float_arithmetic.h"
#include "model/kernels/kernels.h"
#include "quant/grid/kernels/quant_kernels.h"

namespace {

using namespace qeval;

std::vector<float> waves(int64_t n) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = 4.0F * std::sin(static_cast<float>(i) * 0.7F);
  return x;
}

/// Runs `apply(x, n)` on a row that is restored where the operation works in place.
template <typename Apply>
void row(benchmark::State& state, bool in_place, const Apply& apply) {
  const int64_t n = state.range(0);
  const std::vector<float> source = waves(n);
  std::vector<float> x = source;
  for ([[maybe_unused]] const auto _ : state) {
    if (in_place) std::ranges::copy(source, x.begin());
    apply(x.data(), n);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * n);
}

void softmax(benchmark::State& state) {
  row(state, true, [](float* x, int64_t n) { model::kernels().softmax(x, n, 0.125F); });
}
BENCHMARK(softmax)->Arg(256)->Arg(2048);

void log_sum_exp(benchmark::State& state) {
  row(state, false,
      [](const float* x, int64_t n) { benchmark::DoNotOptimize(model::kernels().logit_tile(x, n)); });
}
BENCHMARK(log_sum_exp)->Arg(49152);

void rms_norm(benchmark::State& state) {
  const std::vector<float> weight = waves(state.range(0));
  std::vector<float> y(weight.size());
  row(state, false,
      [&](const float* x, int64_t n) { model::kernels().rms_norm(x, weight.data(), 1e-5F, n, y.data()); });
}
BENCHMARK(rms_norm)->Arg(576)->Arg(2048);

void silu(benchmark::State& state) {
  std::vector<float> y(static_cast<size_t>(state.range(0)));
  row(state, false, [&](const float* x, int64_t n) { model::kernels().silu(x, n, y.data()); });
}
BENCHMARK(silu)->Arg(1536);

void fake_quantize(benchmark::State& state) {
  const quant::Grid grid{.scale = 8.0F / 255, .zero_point = 128, .q_min = 0, .q_max = 255};
  std::vector<float> y(static_cast<size_t>(state.range(0)));
  row(state, false,
      [&](const float* x, int64_t n) { quant::quant_kernels().fake_quantize(x, n, grid, y.data()); });
}
BENCHMARK(fake_quantize)->Arg(1536);

/// One tile of 8 queries with three heads to a key/value head, of SmolLM2's shape, that stands at the end of
/// a context of state.range(0) tokens.
void attention(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  constexpr int64_t kQueries = 8;
  model::Model shape;
  shape.config.num_heads = 3;
  shape.config.num_kv_heads = 1;
  shape.config.head_dim = 64;
  shape.config.hidden_size = 192;
  shape.config.num_layers = 1;
  shape.config.rotary.dim = 64;
  shape.config.graph = model::make_graph(shape.config);
  const model::FloatArithmetic arithmetic(shape, tokens);
  model::Tensor q, kv, out;
  q.resize(tokens, 192, sizeof(float));
  kv.resize(tokens, 64, sizeof(float));
  out.resize(tokens, 192, sizeof(float));
  const std::vector<float> values = waves(tokens * 192);
  // Small queries, as a model's are: with scores far apart most probabilities would be denormal numbers.
  std::ranges::transform(values, q.row<float>(0), [](float x) { return 0.1F * x; });
  std::copy_n(values.begin(), tokens * 64, kv.row<float>(0));
  std::vector<std::byte> block(static_cast<size_t>(arithmetic.kv_bytes(0, tokens)));
  arithmetic.store_kv(0, kv, kv, 0, tokens, {.data = block.data(), .capacity = tokens}, 0);
  const std::vector<model::KvPiece> path{{.data = block.data(), .capacity = tokens, .length = tokens}};
  AlignedBuffer scores, scratch;
  const model::AttentionTile tile{.op = &shape.config.graph.block(0).attention(),
                                  .first_row = tokens - kQueries,
                                  .query_count = kQueries,
                                  .first_position = tokens - kQueries,
                                  .key_count = tokens,
                                  .path = path,
                                  .scores = scores,
                                  .scratch = scratch};
  for ([[maybe_unused]] const auto _ : state) {
    arithmetic.scores(tile, q);
    arithmetic.softmax(tile);
    arithmetic.mix(tile, out);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kQueries * 3 * tokens);
}
BENCHMARK(attention)->RangeMultiplier(2)->Range(256, 8192);

}  // namespace
