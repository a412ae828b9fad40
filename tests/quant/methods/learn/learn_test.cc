// The learning loop: schedules, batches, memory budget, resuming and stopping. (The gradients are tested in
// train_block_test, whole runs against the paper's code in train_golden_test.)
#include "quant/methods/learn/learn.h"

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/calibrate/calibration.h"
#include "quant/methods/learn/learn_state.h"
#include "tests/model/fixtures.h"
#include "tests/quant/block_weights.h"
#include "tests/ranks.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

/// A learning problem of its own weights, made anew for every run, since learning folds them.
class Problem {
 public:
  /// `codes`: the linear maps' weights count as codes that stay.
  explicit Problem(bool codes = false) : model_(tiny_.build()) {
    for (int32_t s = 0; s < 5; ++s) {
      std::vector<int32_t> sample;
      for (int32_t i = 0; i < 12; ++i) sample.push_back((s * 17 + i * (s + 3)) % 61);
      problem.samples.push_back(sample);
    }
    problem.model = &model_;
    problem.qcfg = make_qcfg(model_.config, parse_scheme("w4a8"));
    const Calibration calibration = calibrate(model_, problem.samples, problem.qcfg, {});
    problem.ranges = complete_ranges(problem.qcfg, calibration.ranges, model_.config, "the test");
    problem.blocks = test::block_weights(model_, matrices_);
    if (!codes) return;
    problem.codes = problem.qcfg;
    for (const Point& point : all_points(model_.config)) {
      const bool linear = point.slot == Slot::weight && is_linear(point.module);
      (linear ? problem.qcfg : *problem.codes)[point] = QuantSpec{};
    }
  }

  LearnProblem problem;

  std::vector<float> weights() const {
    std::vector<float> all;
    for (const auto& matrix : matrices_) all.insert(all.end(), matrix->begin(), matrix->end());
    return all;
  }

 private:
  test::TinyModel tiny_{7};
  model::Model model_;
  std::vector<std::unique_ptr<std::vector<float>>> matrices_;
};

LearnSettings settings(LearnMethod method) {
  LearnSettings settings;
  settings.method = method;
  settings.epochs = 3;
  settings.rates = {{{5e-3, 5e-4}, {1e-2, 1e-3}, {1e-4, 1e-5}}};
  return settings;
}

struct Outcome {
  std::vector<StepRecord> records;
  std::vector<float> weights;
  ActRanges ranges;
};

Outcome run(const LearnSettings& settings, const LearnState* resume = nullptr,
            const std::function<void(const LearnState&, bool)>& state = {}) {
  Problem problem(settings.round_first);
  Outcome outcome;
  learn(problem.problem, settings, {[&](const StepRecord& r) { outcome.records.push_back(r); }, state},
        resume);
  outcome.weights = problem.weights();
  outcome.ranges = problem.problem.ranges;
  return outcome;
}

/// The same on several ranks: what the first returns, after all returned the same.
Outcome run_on(int64_t ranks, const LearnSettings& settings) {
  std::vector<Outcome> outcomes(static_cast<size_t>(ranks));
  test::run_ranks(ranks, [&](const Peers& peers) {
    Problem problem;
    Outcome& outcome = outcomes[static_cast<size_t>(peers.rank)];
    learn(problem.problem, settings, {[&](const StepRecord& r) { outcome.records.push_back(r); }, {}},
          nullptr, peers);
    outcome.weights = problem.weights();
    outcome.ranges = problem.problem.ranges;
  });
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.weights, outcomes.front().weights);
  return outcomes.front();
}

class Learn : public testing::TestWithParam<LearnMethod> {};
INSTANTIATE_TEST_SUITE_P(Methods, Learn,
                         testing::Values(LearnMethod::omniquant, LearnMethod::lrl, LearnMethod::mobilequant));

TEST_P(Learn, TheLossFalls) {
  LearnSettings chosen = settings(GetParam());
  chosen.epochs = 10;
  chosen.rates = {{{1e-3, 1e-4}, {1e-2, 1e-3}, {1e-5, 1e-6}}};
  const Outcome outcome = run(chosen);
  const auto epoch_loss = [&](int64_t epoch) {
    double sum = 0;
    for (const StepRecord& r : outcome.records) {
      if (r.epoch == epoch && r.layer <= 0) sum += r.loss;
    }
    return sum;
  };
  EXPECT_LT(epoch_loss(9), 0.98 * epoch_loss(0));
}

/// Step by step, to the bit: whoever passes a sample, its gradient is added in the same place.
TEST_P(Learn, RanksLearnWhatOneProcessLearns) {
  for (const int64_t batch : {1, 2, 3}) {
    LearnSettings chosen = settings(GetParam());
    chosen.batch_size = batch;
    const Outcome alone = run(chosen);
    for (const int64_t ranks : {2, 3}) {
      const Outcome together = run_on(ranks, chosen);
      ASSERT_EQ(together.records.size(), alone.records.size());
      for (size_t i = 0; i < alone.records.size(); ++i)
        EXPECT_EQ(together.records[i].loss, alone.records[i].loss) << "step " << i;
      EXPECT_EQ(together.weights, alone.weights) << ranks << " ranks, batch " << batch;
      EXPECT_EQ(together.ranges, alone.ranges);
    }
  }
}

/// A batch's gradient is the mean of its samples': a sample twice learns as it does once.
TEST_P(Learn, EqualSamplesInABatchAreOne) {
  LearnSettings chosen = settings(GetParam());
  Problem once, twice;
  once.problem.samples.resize(1);
  twice.problem.samples.assign(2, once.problem.samples.front());
  std::vector<double> losses_once, losses_twice;
  learn(once.problem, chosen, {[&](const StepRecord& r) { losses_once.push_back(r.loss); }, {}});
  chosen.batch_size = 2;
  learn(twice.problem, chosen, {[&](const StepRecord& r) { losses_twice.push_back(r.loss); }, {}});
  EXPECT_EQ(losses_once, losses_twice);  // halves and doubles are exact
}

/// Whatever the step at which the state was saved, what follows is the same to the bit; the state goes
/// through a file.
void expect_resumes(const LearnSettings& chosen) {
  const model::fixtures::TemporaryFolder folder;
  const Outcome whole = run(chosen);
  const auto steps = std::ssize(whole.records);
  const auto block = steps / 2;  // of the block-wise methods: the state after the first block's last step
  for (const int64_t stop : {int64_t{1}, block - 1, block, steps - 1, steps}) {
    run(chosen, nullptr, [&](const LearnState& state, bool) {
      if (state.step == stop) save_state(folder / "state", state, "this run");
    });
    Problem problem(chosen.round_first);
    LearnState state = initial_state(problem.problem, chosen);
    load_state(folder / "state", "this run", state);
    EXPECT_EQ(state.step, stop);
    const Outcome rest = run(chosen, &state);
    ASSERT_EQ(std::ssize(rest.records), steps - stop);
    if (stop < steps) {
      EXPECT_EQ(rest.records.front().step, stop);
      EXPECT_EQ(rest.records.back().loss, whole.records.back().loss);
    }
    EXPECT_EQ(rest.weights, whole.weights);
    EXPECT_TRUE(rest.ranges == whole.ranges);
  }
}

TEST_P(Learn, AResumedRunIsTheUnbrokenOne) {
  expect_resumes(settings(GetParam()));
}

TEST(LearnCodes, MoveByFactorsAndResume) {
  LearnSettings chosen = settings(LearnMethod::mobilequant);
  chosen.round_first = true;
  expect_resumes(chosen);
  const Outcome outcome = run(chosen);
  EXPECT_LT(outcome.records.back().loss, 0.9 * outcome.records[outcome.records.size() / 3 - 1].loss);
  EXPECT_NE(outcome.weights, Problem(true).weights());
  // Relative rates move the ranges of coarse grids alone: of the others, up to a float's rounding, none.
  chosen.relative_ranges = true;
  const ActRanges moved = run(chosen).ranges;
  const Problem start(true);
  int64_t coarse = 0, fine = 0;
  for (int64_t module = 0; module < kBlockModules; ++module) {
    for (const Slot slot : {Slot::input, Slot::input2, Slot::output}) {
      const Point point{1, static_cast<Module>(module), slot};
      const auto& from = start.problem.ranges[point];
      const QuantSpec& spec = start.problem.qcfg[point];
      if (!from || !spec.enabled()) continue;
      const float change = std::abs((moved[point]->hi - moved[point]->lo) / (from->hi - from->lo) - 1);
      (spec.bits > 10 ? fine : coarse) += change > 1e-4F;
    }
  }
  EXPECT_EQ(fine, 0);
  EXPECT_GT(coarse, 5);
}

/// A share of a fine grid's range is many of its steps: those stay, and so do masked keys' probabilities.
TEST(LearnEndToEnd, RelativeRatesLeaveFineGridsAlone) {
  LearnSettings chosen = settings(LearnMethod::mobilequant);
  chosen.relative_ranges = true;
  chosen.rates[2] = {1e-2, 1e-3};
  const ActRanges moved = run(chosen).ranges;
  const Problem start;
  const Point probabilities{1, Module::pv_product, Slot::input}, values{1, Module::v, Slot::output};
  EXPECT_FLOAT_EQ(moved[probabilities]->lo, start.problem.ranges[probabilities]->lo);
  EXPECT_NE(moved[values]->hi, start.problem.ranges[values]->hi);
}

/// With what the paper's code lacks as well: the loss on logits and rates relative to the ranges.
TEST(LearnEndToEnd, ContinuesWithTheSameBitsOnLogitsAndRelativeRates) {
  LearnSettings chosen = settings(LearnMethod::mobilequant);
  chosen.loss = LearnLoss::logits;
  chosen.relative_ranges = true;
  chosen.rates = {{{2e-3, 2e-4}, {1e-2, 1e-3}, {5e-4, 5e-5}}};
  std::vector<LearnState> states;
  const Outcome whole = run(chosen, nullptr, [&](const LearnState& state, bool) { states.push_back(state); });
  EXPECT_NE(whole.weights, run(settings(LearnMethod::mobilequant)).weights);
  const Outcome rest = run(chosen, &states[6]);
  EXPECT_EQ(rest.records.size(), whole.records.size() - 7);
  EXPECT_EQ(rest.weights, whole.weights);
  EXPECT_TRUE(rest.ranges == whole.ranges);
}

/// The first step of Adam moves a parameter by its rate.
TEST(LearnRates, RelativeOnesMoveARangeByAShareOfItsWidth) {
  LearnSettings chosen = settings(LearnMethod::mobilequant);
  chosen.rates = {{{0, 0}, {0, 0}, {1e-3, 1e-3}}};
  chosen.epochs = 1;
  chosen.relative_ranges = true;
  const Problem problem;
  const LearnState before = initial_state(problem.problem, chosen);
  std::optional<LearnState> after;
  run(chosen, nullptr, [&](const LearnState& state, bool) {
    if (!after) after = state;
  });
  int moved = 0;
  for (size_t i = 0; i < before.parameters[0].scale.size(); ++i) {
    const std::vector<float>& scale = before.parameters[0].scale[i].value;
    if (scale.empty()) continue;
    const double ratio =
        static_cast<double>(after->parameters[0].scale[i].value[0]) / static_cast<double>(scale[0]);
    if (ratio == 1) continue;  // no gradient: a range that clips nothing may have none
    EXPECT_NEAR(std::abs(ratio - 1), 1e-3, 1e-5) << i;
    ++moved;
  }
  EXPECT_GT(moved, 5);
}

TEST(LearnFiles, AStateOfAnotherRunOrADamagedOneIsRefused) {
  const model::fixtures::TemporaryFolder folder;
  const LearnSettings chosen = settings(LearnMethod::mobilequant);
  Problem problem;
  LearnState state = initial_state(problem.problem, chosen);
  save_state(folder / "state", state, "this run");
  EXPECT_THROW(load_state(folder / "state", "another run", state), Error);
  EXPECT_THROW(load_state(folder / "none", "this run", state), Error);
  const auto size = std::filesystem::file_size(folder / "state");
  for (const auto left : {size - 1, size / 2, uintmax_t{20}, uintmax_t{3}, uintmax_t{0}}) {
    std::filesystem::resize_file(folder / "state", left);
    EXPECT_THROW(load_state(folder / "state", "this run", state), Error) << left;
  }
}

/// Activations computed a second time are the same activations.
TEST_P(Learn, TheMemoryBudgetChangesNothing) {
  LearnSettings chosen = settings(GetParam());
  const Outcome kept = run(chosen);
  chosen.activation_bytes = 0;
  const Outcome recomputed = run(chosen);
  EXPECT_EQ(kept.weights, recomputed.weights);
  EXPECT_TRUE(kept.ranges == recomputed.ranges);
}

/// A step over a batch takes the mean of the samples' losses; the last batch may be smaller.
TEST(LearnBatches, ABatchIsTheMeanOfItsSamples) {
  LearnSettings one = settings(LearnMethod::mobilequant), two = one;
  one.epochs = two.epochs = 1;
  for (RateSchedule& rate : one.rates) rate = {0, 0};  // losses at the starting point
  two.rates = one.rates;
  two.batch_size = 2;
  const Outcome single = run(one), pairs = run(two);
  ASSERT_EQ(single.records.size(), 5U);
  ASSERT_EQ(pairs.records.size(), 3U);
  const auto loss = [&](size_t i) { return single.records[i].loss; };
  EXPECT_DOUBLE_EQ(pairs.records[0].loss, (loss(0) + loss(1)) / 2);
  EXPECT_DOUBLE_EQ(pairs.records[1].loss, (loss(2) + loss(3)) / 2);
  EXPECT_DOUBLE_EQ(pairs.records[2].loss, loss(4));
  EXPECT_NE(loss(0), loss(1));
}

TEST(LearnRates, WarmUpRisesAndTheCosineFalls) {
  const RateSchedule schedule{1.0, 0.1};
  EXPECT_DOUBLE_EQ(schedule.at(0, 12, 2), 0.5);
  EXPECT_DOUBLE_EQ(schedule.at(1, 12, 2), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(2, 12, 2), 1.0);
  EXPECT_NEAR(schedule.at(7, 12, 2), 0.55, 1e-12);  // half-way down
  EXPECT_NEAR(schedule.at(11, 12, 2), 0.1 + 0.45 * (1 + std::cos(0.9 * M_PI)), 1e-12);
  LearnSettings chosen = settings(LearnMethod::mobilequant);
  chosen.warmup_epochs = 1;
  const Outcome outcome = run(chosen);
  EXPECT_NEAR(outcome.records[0].rates[0], 5e-3 / 5, 1e-15);
  EXPECT_NEAR(outcome.records[4].rates[0], 5e-3, 1e-15);
  EXPECT_LT(outcome.records[14].rates[0], outcome.records[5].rates[0]);
}

/// Adam's first steps by hand: m̂/(√v̂ + ε) is the gradient's sign at first, whatever its size.
TEST(LearnRates, AdamMovesByTheRateAtFirst) {
  Parameter<float> p{"p", ParameterGroup::lwc, {1.0F, 2.0F}, {0.3F, -40.0F}};
  AdamW optimizer({&p});
  optimizer.step({0, 0.1, 0});
  EXPECT_NEAR(p.value[0], 0.9F, 1e-6);
  EXPECT_NEAR(p.value[1], 2.1F, 1e-6);
  p.gradient = {0.0F, -40.0F};
  optimizer.step({0, 0.1, 0});
  const double m = 0.9 * 0.1 * 0.3 / (1 - 0.81), v = 0.999 * 0.001 * 0.09 / (1 - 0.999 * 0.999);
  EXPECT_NEAR(p.value[0], 0.9 - 0.1 * m / std::sqrt(v), 1e-5);
  EXPECT_NEAR(p.value[1], 2.2F, 1e-5);
}

/// The last step may throw a scale across the bound, and the state is saved before that is corrected: a run
/// continued there folded the scale as it was.
TEST_P(Learn, AStateAtTheEndOfABlockIsBoundedBeforeItIsFolded) {
  const LearnSettings chosen = settings(GetParam());
  std::optional<LearnState> last;
  const auto steps = learning_steps(chosen, 5, 1);
  run(chosen, nullptr, [&](const LearnState& state, bool) {
    if (state.step == steps) last = state;
  });
  std::vector<float>& scales = last->parameters[0].let[0].value;
  scales[0] = 0.01F;
  const Outcome at_the_bound = run(chosen, &*last);
  scales[0] = 0.0025F;
  const Outcome below_it = run(chosen, &*last);
  EXPECT_EQ(below_it.weights, at_the_bound.weights);
  EXPECT_TRUE(below_it.ranges == at_the_bound.ranges);
}

TEST(LearnRefusals, NameTheOperationAndTheLength) {
  const auto refusal = [](const std::function<void(model::ModelConfig&)>& change) {
    Problem problem;
    model::Model model = *problem.problem.model;
    change(model.config);
    model.config.graph = model::make_graph(model.config);
    problem.problem.model = &model;
    return model::fixtures::error_of([&] { learn(problem.problem, settings(LearnMethod::mobilequant), {}); });
  };
  EXPECT_THAT(refusal([](model::ModelConfig& c) { c.activation = model::Activation::xielu; }),
              testing::HasSubstr("learning has no xIELU"));
  EXPECT_THAT(refusal([](model::ModelConfig& c) {
                c.latent =
                    model::LatentAttention{.q_rank = 8, .kv_rank = 8, .nope = 4, .rope = 6, .value_dim = 10};
              }),
              testing::HasSubstr("learning has no latent attention"));
  EXPECT_THAT(refusal([](model::ModelConfig& c) {
                c.rotary.scaling.kind = model::RopeScaling::Kind::dynamic;
                c.rotary.scaling.original_max_position_embeddings = 11;
              }),
              testing::HasSubstr("12 tokens"));
}

/// The values of every parameter, of all blocks.
std::vector<float> learned_values(const std::vector<BlockParameters<float>>& blocks) {
  std::vector<float> all;
  for (BlockParameters<float> block : blocks) {
    for (const Parameter<float>* p : block.learned()) all.insert(all.end(), p->value.begin(), p->value.end());
  }
  return all;
}

/// A rate that throws the parameters to infinity: learning stops, names step and layer, and hands out the
/// last state whose loss was finite.
TEST_P(Learn, ALossThatIsNotFiniteStopsAndKeepsTheLastGoodState) {
  LearnSettings chosen = settings(GetParam());
  for (RateSchedule& rate : chosen.rates) rate = {1e38, 1e38};
  std::optional<LearnState> kept;
  const auto state = [&](const LearnState& s, bool fails) {
    if (fails) kept = s;
  };
  try {
    run(chosen, nullptr, state);
    FAIL() << "learning went on";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("step 1"));
    EXPECT_THAT(error.what(), testing::HasSubstr("last good state"));
  }
  ASSERT_TRUE(kept.has_value());
  // The loss of the first step was finite: the state is the one before it, in all its parts.
  const Problem problem;
  EXPECT_EQ(learned_values(kept->parameters),
            learned_values(initial_state(problem.problem, chosen).parameters));
  EXPECT_EQ(kept->step, 0);
  EXPECT_EQ(kept->optimizer_steps, 0);
  for (const AdamW::Moments& moments : kept->moments) {
    for (const float m : moments.first) ASSERT_EQ(m, 0);
  }
}

/// A block whose first loss is not finite got the values of the block before it into the state that is kept.
TEST(LearnFailure, ABlocksFirstStepLeavesTheStateBetweenTheBlocks) {
  const LearnSettings chosen = settings(LearnMethod::omniquant);
  Problem problem;
  problem.problem.blocks[1].linear(Module::q).weight[0] = std::numeric_limits<float>::infinity();
  std::optional<LearnState> last, kept;
  const LearnObserver observer{
      {}, [&](const LearnState& state, bool failing) { (failing ? kept : last) = state; }};
  EXPECT_THROW(learn(problem.problem, chosen, observer), Error);
  ASSERT_TRUE(last && kept);
  EXPECT_EQ(kept->step, learning_steps(chosen, 5, 1));
  EXPECT_EQ(last->step, kept->step);
  last->parameters[0].bound_let();
  EXPECT_EQ(learned_values(kept->parameters), learned_values(last->parameters));
}

/// Null end to end, as who reads the log expects a layer.
TEST(LearnFiles, ALineOfTheLogNamesTheLayer) {
  StepRecord record{.step = 3, .layer = 1};
  EXPECT_THAT(step_json(record), testing::HasSubstr(R"("layer":1,)"));
  record.layer = -1;
  EXPECT_THAT(step_json(record), testing::HasSubstr(R"("layer":null,)"));
}

/// The gradients at the start are those of the loss that the run would minimise.
TEST(LearnGradients, AreOfTheSettingsLoss) {
  LearnSettings chosen = settings(LearnMethod::mobilequant);
  const Problem problem;
  const Gradients output = end_to_end_gradients(problem.problem, chosen);
  chosen.loss = LearnLoss::logits;
  const Gradients logits = end_to_end_gradients(problem.problem, chosen);
  EXPECT_EQ(logits.loss, run(chosen).records.front().loss);
  EXPECT_NE(logits.loss, output.loss);
}

}  // namespace
}  // namespace qeval::quant
