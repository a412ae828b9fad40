// Learning the codes of weights themselves, within grids that stay. (Factors of the grids' scales:
// learn_test.)
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include <gtest/gtest.h>

#include "quant/calibrate/calibration.h"
#include "quant/grid/stored_codes.h"
#include "quant/methods/editable_model.h"
#include "quant/methods/learn/fold.h"
#include "quant/methods/learn/learn.h"
#include "quant/methods/learn/learn_state.h"
#include "tests/model/fixtures.h"
#include "tests/quant/block_weights.h"
#include "tests/ranks.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

LearnSettings end_to_end() {
  LearnSettings settings;
  settings.method = LearnMethod::mobilequant;
  settings.epochs = 3;
  return settings;
}

/// The problem with weights that are codes in memory, to be learned against the float model.
class CodedProblem {
 public:
  /// `group`: inputs that share a grid, −1 for the scheme's own.
  explicit CodedProblem(int bits = 4, int64_t group = -1) : source_(tiny_.build()), edited_(source_) {
    for (int32_t s = 0; s < 5; ++s) {
      std::vector<int32_t> sample;
      for (int32_t i = 0; i < 12; ++i) sample.push_back((s * 17 + i * (s + 3)) % 61);
      problem.samples.push_back(sample);
    }
    problem.model = &source_;
    problem.qcfg = make_qcfg(source_.config, parse_scheme("w4a8"));
    const Calibration calibration = calibrate(source_, problem.samples, problem.qcfg, {});
    problem.ranges = complete_ranges(problem.qcfg, calibration.ranges, source_.config, "the test");
    problem.blocks = test::block_weights(source_, matrices_);
    problem.targets = float_targets(problem, end_to_end());
    problem.codes = problem.qcfg;
    for (const Point& point : all_points(source_.config)) {
      const bool linear = point.slot == Slot::weight && is_linear(point.module);
      (linear ? problem.qcfg : *problem.codes)[point] = QuantSpec{};
      if (!linear || is_after_blocks(point.module)) continue;
      QuantSpec& spec = (*problem.codes)[point];
      spec.bits = bits;
      if (group > 0) spec.group_size = group;
      const model::Matrix& weight =
          source_.layers[static_cast<size_t>(point.layer)].all(point.module)[0]->weight;
      edited_.set_codes(point.layer, point.module, quantize_matrix(weight, spec));
    }
    model_ = edited_.model();
    problem.model = &model_;
    problem.blocks = test::block_weights(model_, matrices_);
  }

  LearnProblem problem;

  QuantizedMatrix codes(int64_t layer, Module module) const {
    const model::Matrix& weight = model_.layers[static_cast<size_t>(layer)].all(module)[0]->weight;
    return quantized_weight(weight, (*problem.codes)[{layer, module, Slot::weight}]);
  }
  /// Calls visit(layer, module) for every linear map of the blocks.
  void visit_maps(const std::function<void(int64_t, Module)>& visit) const {
    for (size_t layer = 0; layer < model_.layers.size(); ++layer)
      for (const auto& [module, linear] : model_.layers[layer].linears)
        visit(static_cast<int64_t>(layer), module);
  }

 private:
  test::TinyModel tiny_{7};
  model::Model source_;
  EditableModel edited_;
  model::Model model_;
  std::vector<std::unique_ptr<std::vector<float>>> matrices_;
};

LearnSettings code_settings() {
  LearnSettings chosen = end_to_end();
  chosen.round_first = true;
  chosen.epochs = 12;
  chosen.rates = {{{0, 0}, {0, 0}, {0, 0}, {0.1, 0.01}}};
  return chosen;
}

/// Codes that stay, in groups, one of them short: with what quantize_weight made and without it, the same.
TEST(LearnCodes, GradientsDoNotDependOnWhatIsStillInMemory) {
  constexpr int64_t kRows = 40, kCols = 21, kGroup = 8;
  std::mt19937 random(5);
  const auto numbers = [&](int64_t count) {
    std::vector<double> all(static_cast<size_t>(count));
    for (double& x : all) x = std::uniform_real_distribution(0.3, 1.3)(random);
    return all;
  };
  const std::vector<double> w = numbers(kRows * kCols), factors = numbers(kRows * 3);
  const std::vector<double> upstream = numbers(kRows * kCols), columns = numbers(kCols);
  for (const double* multiplier : {static_cast<const double*>(nullptr), columns.data()}) {
    TransformedWeight<double> weight{w.data(), kRows, kCols, multiplier, nullptr, nullptr, nullptr};
    weight.grid_factor = factors.data();
    weight.group = kGroup;
    const QuantSpec spec{.bits = 32};
    std::vector<double> made(w.size());
    quantize_weight(weight, spec, {}, made.data());
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t j = 0; j < kCols; ++j) {
        const auto i = static_cast<size_t>(r * kCols + j);
        const double scaled = multiplier == nullptr ? w[i] : w[i] * multiplier[j];
        ASSERT_EQ(made[i], scaled * factors[static_cast<size_t>(r * 3 + j / kGroup)]);
      }
    }
    std::vector<std::vector<double>> found;
    for (const double* there :
         {static_cast<const double*>(nullptr), static_cast<const double*>(made.data())}) {
      std::vector<double> gradient = upstream, code(w.size()), factor(factors.size());
      quantize_weight_backward<double>(weight, spec, {}, {}, there, gradient.data(),
                                       {.grid_factor = factor.data(), .code = code.data()});
      EXPECT_EQ(code, upstream);
      found.push_back(factor);
    }
    EXPECT_EQ(found[0], found[1]);
    EXPECT_NE(found[0][0], 0.0);
  }
}

/// Of a batch's samples one process adds the codes' gradients in place, ranks through messages: the same
/// bits.
TEST(LearnCodes, RanksLearnWhatOneProcessLearns) {
  const auto run = [](const LearnSettings& settings, const Peers& peers) {
    CodedProblem coded(4, 8);
    std::vector<double> losses;
    const std::vector<BlockParameters<float>> learned =
        learn(coded.problem, settings, {[&](const StepRecord& r) { losses.push_back(r.loss); }, {}}, nullptr,
              peers);
    std::vector<std::vector<float>> all;
    for (const BlockParameters<float>& block : learned) {
      for (const Parameter<float>& p : block.code) all.push_back(p.value);
    }
    return std::pair(losses, all);
  };
  for (const int64_t batch : {2, 3}) {
    LearnSettings chosen = code_settings();
    chosen.epochs = 3;
    chosen.batch_size = batch;
    const auto alone = run(chosen, {});
    for (const int64_t ranks : {2, 3}) {
      test::run_ranks(ranks, [&](const Peers& peers) {
        const auto together = run(chosen, peers);
        EXPECT_EQ(together.first, alone.first) << ranks << " ranks, batch " << batch;
        EXPECT_EQ(together.second, alone.second);
      });
    }
  }
}

/// Codes alone learn: within their grids, whose scales stay, and what comes out is what was learned with.
TEST(LearnCodes, ThemselvesMoveWhereTheyHaveFewBits) {
  for (const int64_t group : {-1, 8}) {
    CodedProblem coded(4, group);
    std::vector<double> losses;
    const std::vector<BlockParameters<float>> learned =
        learn(coded.problem, code_settings(), {[&](const StepRecord& r) { losses.push_back(r.loss); }, {}});
    const auto mean = [&](size_t first) {
      return std::accumulate(losses.begin() + static_cast<std::ptrdiff_t>(first),
                             losses.begin() + static_cast<std::ptrdiff_t>(first + 5), 0.0);
    };
    EXPECT_LT(mean(losses.size() - 5), 0.8 * mean(0));
    int64_t moved = 0, all = 0;
    coded.visit_maps([&](int64_t layer, Module module) {
      const auto l = static_cast<size_t>(layer), m = static_cast<size_t>(module);
      const QuantizedMatrix before = coded.codes(layer, module);
      QuantizedMatrix after = coded.codes(layer, module);
      take_learned(learned[l].code[m], learned[l].factor[m], after);
      EXPECT_EQ(after.scales, before.scales);
      const auto& block = coded.problem.blocks[l].linear(module);
      for (int64_t i = 0; i < after.rows * after.cols; ++i) {
        const int code = after.codes.as<int8_t>()[i];
        ASSERT_TRUE(code >= -8 && code <= 7);
        moved += code != before.codes.as<int8_t>()[i];
        ++all;
        const auto grid = static_cast<size_t>(after.grid_index(i / after.cols, i % after.cols));
        ASSERT_FLOAT_EQ(block.weight[i],
                        static_cast<float>(code - after.zero_points[grid]) * after.scales[grid]);
      }
    });
    EXPECT_GT(moved, all / 100);
    EXPECT_LT(moved, all / 2);
  }
}

TEST(LearnCodes, ThemselvesResume) {
  const model::fixtures::TemporaryFolder folder;
  const LearnSettings chosen = code_settings();
  const auto codes = [](const std::vector<BlockParameters<float>>& blocks) {
    std::vector<float> all;
    for (const auto& block : blocks) {
      for (const auto& code : block.code) all.insert(all.end(), code.value.begin(), code.value.end());
    }
    return all;
  };
  CodedProblem whole;
  const auto learned = learn(whole.problem, chosen, {{}, [&](const LearnState& state, bool) {
                                                       if (state.step == 31)
                                                         save_state(folder / "state", state, "this run");
                                                     }});
  CodedProblem rest;
  LearnState state = initial_state(rest.problem, chosen);
  load_state(folder / "state", "this run", state);
  EXPECT_EQ(codes(learn(rest.problem, chosen, {}, &state)), codes(learned));
}

/// Of 8 bits they stay, as without a rate of their own; their gradients add up to those of the grids' scales.
TEST(LearnCodes, HaveTheGradientOfTheWeight) {
  CodedProblem fine(8), coarse(4, 8);
  fine.visit_maps([&](int64_t layer, Module module) {
    const auto of = [&](const LearnState& state) {
      return state.parameters[static_cast<size_t>(layer)].code[static_cast<size_t>(module)].value.size();
    };
    EXPECT_EQ(of(initial_state(fine.problem, code_settings())), 0U);
    EXPECT_EQ(of(initial_state(coarse.problem, end_to_end())), 0U);
  });
  const Gradients gradients = end_to_end_gradients(coarse.problem, code_settings());
  coarse.visit_maps([&](int64_t layer, Module module) {
    const auto m = static_cast<size_t>(module);
    const BlockParameters<float>& block = gradients.parameters[static_cast<size_t>(layer)];
    const auto& weights = coarse.problem.blocks[static_cast<size_t>(layer)].linear(module);
    double most = 0;
    for (size_t group = 0; group < block.factor[m].gradient.size(); ++group) {
      double sum = 0;
      for (size_t i = group * 8; i < group * 8 + 8; ++i)
        sum += static_cast<double>(block.code[m].gradient[i]) * static_cast<double>(weights.weight[i]);
      EXPECT_NEAR(sum, block.factor[m].gradient[group], 1e-5 + 1e-4 * std::abs(sum));
      most = std::max(most, std::abs(sum));
    }
    EXPECT_GT(most, 0);
  });
}

}  // namespace
}  // namespace qeval::quant
