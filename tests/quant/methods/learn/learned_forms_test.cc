// Blocks of every form while they learn: what they compute, and that their loss falls.
#include <cmath>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "model/decoder.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/calibrate/calibration.h"
#include "quant/methods/learn/fold.h"
#include "quant/methods/learn/learn.h"
#include "tests/quant/block_forms.h"
#include "tests/quant/block_weights.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

class LearnedForm : public testing::TestWithParam<test::FormCase> {};
INSTANTIATE_TEST_SUITE_P(Forms, LearnedForm, testing::ValuesIn(test::block_forms()),
                         [](const auto& tested) { return tested.param.name; });

/// Blocks at the starting point, nothing transformed or clipped, compute what the simulation does; float
/// blocks what float arithmetic does.
TEST_P(LearnedForm, ComputesWhatTheSimulationDoes) {
  test::TinyModel tiny(5);
  GetParam().change(tiny.config);
  tiny.config.l2norm_as_rmsnorm = true;
  model::Model model = tiny.build();
  std::vector<std::unique_ptr<std::vector<float>>> matrices;
  const std::vector<BlockWeights<float>> weights = test::block_weights(model, matrices);
  constexpr int64_t kTokens = 20;
  std::vector<int32_t> ids, positions, rows;
  for (int32_t i = 0; i < kTokens; ++i) {
    ids.push_back((i * i + 5 * i + 3) % 61);
    positions.push_back(i);
  }
  const QuantConfig qcfg = make_qcfg(model.config, parse_scheme(GetParam().scheme));
  const auto exact = model::make_float_arithmetic(model, kTokens);
  const RotaryTables rotary(model.config, kTokens);
  for (const std::string how : {"in float", "quantized", "position 0 apart"}) {
    const bool quantized = how != "in float";
    Calibration measured = calibrate(model, {ids}, qcfg, {.first_token_apart = how == "position 0 apart"});
    const ActRanges ranges = complete_ranges(qcfg, measured.ranges, model.config, "the test");
    if (measured.first) {
      measured.first->ranges =
          complete_ranges(measured.first->qcfg, measured.first->ranges, model.config, "the test");
    }
    const FakeArithmetic fake(model, qcfg, ranges, kTokens, measured.first);
    const model::Arithmetic& arithmetic = quantized ? static_cast<const model::Arithmetic&>(fake) : *exact;
    model::Tensor x, normed;
    arithmetic.embed(ids, {positions, {}}, x);
    Kept<float> kept;
    Workspace<float> workspace;
    for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
      const Block<float> block =
          make_block(model.config, rotary, weights[static_cast<size_t>(layer)], qcfg, layer, measured.first);
      if (quantized) {
        const auto parameters =
            folded_parameters(initial_parameters<float>(model.config, qcfg, ranges, layer, {}));
        block_forward(block, parameters, x.row<float>(0), kTokens, kept, workspace, x.row<float>(0));
      } else {
        float_block_forward(block, x.row<float>(0), kTokens, workspace, x.row<float>(0));
      }
    }
    arithmetic.finish(x, normed);
    std::vector<float> ours(kTokens * 61);
    arithmetic.logits(normed, 0, 61, ours.data());

    model::Decoder decoder(model, arithmetic);
    model::KvSpan span(arithmetic, kTokens, model.config.num_layers);
    decoder.forward({.tokens = ids, .positions = positions, .segments = {{.length = kTokens, .kv = &span}}});
    const std::vector<float> theirs =
        decoder.logits(std::vector<int64_t>(positions.begin(), positions.end()));
    double difference = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      difference += static_cast<double>(std::abs(ours[i] - theirs[i])) / static_cast<double>(ours.size());
    }
    EXPECT_LT(difference, 1e-4) << how;
  }
}

/// And what they learn lessens the loss.
TEST_P(LearnedForm, TheLossFalls) {
  test::TinyModel tiny(5);
  GetParam().change(tiny.config);
  model::Model model = tiny.build();
  std::vector<std::unique_ptr<std::vector<float>>> matrices;
  LearnProblem problem;
  problem.model = &model;
  problem.blocks = test::block_weights(model, matrices);
  problem.samples = {{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8}, {9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4}};
  problem.qcfg = make_qcfg(model.config, parse_scheme("w4a8"));
  problem.ranges = complete_ranges(problem.qcfg, calibrate(model, problem.samples, problem.qcfg, {}).ranges,
                                   model.config, "the test");
  LearnSettings chosen;
  chosen.method = LearnMethod::mobilequant;
  chosen.epochs = 20;
  chosen.rates = {{{1e-3, 1e-4}, {1e-2, 1e-3}, {1e-5, 1e-6}}};
  if (tiny.config.rotation) {  // whose 4-bit roundings make noise of larger steps of the norms' scales
    chosen.rates = {{{1e-4, 1e-5}, {1e-3, 1e-4}, {1e-6, 1e-7}}};
    chosen.epochs = 40;
  }
  std::vector<double> losses;
  learn(problem, chosen, {[&](const StepRecord& record) { losses.push_back(record.loss); }, {}});
  const size_t n = losses.size();
  EXPECT_LT((losses[n - 1] + losses[n - 2]) / (losses[0] + losses[1]), 0.97);
}

}  // namespace
}  // namespace qeval::quant
