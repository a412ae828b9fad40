// One end-to-end training step (forward, backward, AdamW) on a model of SmolLM2-135M's shape with random
// weights: 30 blocks, w8a8. PyTorch 2 with the paper's code: 5.4 s for 256 tokens on a two-core machine.
#include <chrono>
#include <cmath>
#include <ctime>

#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include "quant/methods/learn/learn.h"

namespace qeval {
namespace {

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

model::ModelConfig smollm2_shape(int64_t layers) {
  model::ModelConfig config;
  config.architecture = "llama";
  config.vocab_size = 256;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_layers = layers;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  config.rotary.dim = 64;
  config.max_position_embeddings = 2048;
  config.graph = model::make_graph(config);
  return config;
}

/// A model whose weights are random: std 1/√inputs.
struct RandomModel {
  model::Model model;
  std::vector<std::vector<float>> matrices;
  std::vector<std::vector<float>> norms;
  std::vector<float> no_bias;
  uint32_t state = 1;

  std::vector<float> numbers(int64_t count, float scale, float shift) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& x : out) {
      state = state * 1664525U + 1013904223U;
      x = shift + scale * (static_cast<float>(state >> 8) / 8388608.0F - 1.0F);
    }
    return out;
  }
};

void end_to_end_step(benchmark::State& state) {
  constexpr int64_t kLayers = 30;
  const int64_t tokens = state.range(0);
  RandomModel random;
  random.model.config = smollm2_shape(kLayers);
  const model::ModelConfig& config = random.model.config;
  const auto embedding = random.numbers(config.vocab_size * config.hidden_size, 1, 0);
  random.model.embedding = {
      .name = "embedding",
      .rows = config.vocab_size,
      .cols = config.hidden_size,
      .stored = qeval::model::StoredWeight(model::DType::f32, config.hidden_size,
                                           reinterpret_cast<const std::byte*>(embedding.data()))};
  quant::LearnProblem problem;
  problem.model = &random.model;
  random.matrices.reserve(kLayers * 7);
  random.norms.reserve(kLayers * 2);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    quant::BlockWeights<float> block;
    const auto norm = [&]() -> quant::BlockWeights<float>::Norm {
      random.norms.push_back(random.numbers(config.hidden_size, 0.3F, 1));
      return {&random.norms.back(), &random.no_bias};
    };
    const auto linear = [&](int64_t rows, int64_t cols) -> quant::BlockWeights<float>::Linear {
      random.matrices.push_back(random.numbers(rows * cols, 1.7F / std::sqrt(static_cast<float>(cols)), 0));
      return {random.matrices.back().data(), rows, cols, &random.no_bias};
    };
    block.norm(quant::Module::input_norm) = norm();
    block.norm(quant::Module::post_attention_norm) = norm();
    for (const model::Operation& operation : config.graph.block(layer).operations) {
      if (const auto* op = std::get_if<model::LinearOp>(&operation)) {
        block.linear(op->module) = linear(op->rows, op->cols);
      }
    }
    problem.blocks.push_back(block);
  }
  problem.qcfg = quant::make_qcfg(config, quant::parse_scheme("w8a8"));
  problem.ranges = quant::ActRanges(kLayers, quant::Range{-4, 4});
  std::vector<int32_t> sample(static_cast<size_t>(tokens));
  for (size_t i = 0; i < sample.size(); ++i) sample[i] = static_cast<int32_t>(i * 37 % 256);
  problem.samples = {sample};

  const quant::LearnSettings settings{.epochs = 4};
  double wall = 0;
  double cpu = 0;
  int64_t steps = 0;
  for ([[maybe_unused]] auto _ : state) {
    using Clock = std::chrono::steady_clock;
    Clock::time_point last;
    double last_cpu = 0;
    const quant::LearnObserver observer{[&](const quant::StepRecord& record) {
                                          const auto now = Clock::now();
                                          const double now_cpu = cpu_seconds();
                                          if (record.step > 0) {  // the first warms up
                                            wall += std::chrono::duration<double>(now - last).count();
                                            cpu += now_cpu - last_cpu;
                                            ++steps;
                                          }
                                          last = now;
                                          last_cpu = now_cpu;
                                        },
                                        {}};
    quant::learn(problem, settings, observer);
  }
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  state.counters["step_wall_s"] = wall / static_cast<double>(steps);
  state.counters["step_cpu_s"] = cpu / static_cast<double>(steps);
  state.counters["peak_MiB"] = static_cast<double>(usage.ru_maxrss) / 1024;
}

BENCHMARK(end_to_end_step)->Arg(256)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace qeval
