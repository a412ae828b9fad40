// The instrument that runs the simulation and the integers on the same inputs.

#include "quant/arithmetic/integer/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "model/decoder.h"
#include "quant/calibrate/calibration.h"
#include "quant/calibrate/observer.h"
#include "tests/quant/integer_forms.h"
#include "tests/reference_data.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

class IntegerComparison : public testing::Test {
 protected:
  IntegerComparison() {
    tiny_.config.l2norm_as_rmsnorm = true;
    build();
  }

  /// The model of tiny_.config in both arithmetics, on the ranges of the samples.
  void build() {
    model_ = tiny_.build();
    measure();
  }
  void measure() {
    samples_.clear();
    for (int32_t s = 0; s < 3; ++s) {
      samples_.emplace_back();
      for (int32_t i = 0; i < length_; ++i) samples_.back().push_back((i * 7 + s * 11 + i * i) % 61);
    }
    qcfg_ = make_qcfg(model_.config, parse_scheme(scheme_));
    const Calibration measured = calibrate(
        model_, samples_, qcfg_, {.estimator = estimator_, .first_token_apart = first_token_apart_});
    known_ = measured.ranges;
    ranges_ = complete_ranges(qcfg_, known_, model_.config, "test");
    first_ = measured.first;
    if (first_) {
      const ActRanges known = first_->ranges;
      first_->ranges = complete_ranges(first_->qcfg, known, model_.config, "test");
      const Point end{0, Module::final_norm, Slot::input};
      first_->ranges[end] = known[end];
    }
    fake_ = std::make_unique<FakeArithmetic>(model_, qcfg_, ranges_, 160, first_);
    integer_ = std::make_unique<IntegerArithmetic>(model_, qcfg_, known_, 160, kStreamGuardBits, first_);
  }

  std::vector<std::pair<Point, StepDifference>> compared() const {
    const PointMap<StepDifference> found = compare_operations(model_, *fake_, *integer_, samples_);
    std::vector<std::pair<Point, StepDifference>> all;
    for (const Point& point : all_points(model_.config)) {
      if (found[point].values > 0) all.emplace_back(point, found[point]);
    }
    return all;
  }

  std::vector<float> logits(const model::Arithmetic& arithmetic) const {
    model::Decoder decoder(model_, arithmetic);
    model::KvSpan span(arithmetic, length_, 1);
    model::Batch batch;
    batch.tokens = samples_[0];
    std::vector<int64_t> rows;
    for (int32_t i = 0; i < length_; ++i) {
      batch.positions.push_back(i);
      rows.push_back(i);
    }
    batch.segments.push_back({.first_row = 0, .length = length_, .first_position = 0, .kv = &span});
    decoder.forward(batch);
    return decoder.logits(rows);
  }

  /// But for the stream's 28 bits, which the instrument has in float32: a code here and there is another.
  void expect_taking_all_is_integers(double most = 0.01) const {
    const ComparingArithmetic all(model_, *fake_, *integer_, [](const Point&) { return true; });
    const std::vector<float> got = logits(all), want = logits(*integer_), simulated = logits(*fake_);
    if (first_token_apart_) {  // the rows behind it hardly show what it is
      const auto vocabulary = model_.config.vocab_size;
      for (int64_t i = 0; i < vocabulary; ++i)
        EXPECT_EQ(got[static_cast<size_t>(i)], want[static_cast<size_t>(i)]) << "position 0, logit " << i;
    }
    double distance = 0, apart = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      distance += std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
      apart += std::abs(static_cast<double>(simulated[i]) - static_cast<double>(want[i]));
    }
    EXPECT_LT(distance, most * apart);
  }

  std::string scheme_ = "w8a8";
  int32_t length_ = 40;  ///< of each sample
  RangeEstimator estimator_ = RangeEstimator::minmax;
  bool first_token_apart_ = false;
  test::TinyModel tiny_;
  model::Model model_;
  Samples samples_;
  QuantConfig qcfg_;
  ActRanges known_, ranges_;
  std::optional<FirstToken> first_;
  std::unique_ptr<FakeArithmetic> fake_;
  std::unique_ptr<IntegerArithmetic> integer_;
};

TEST_F(IntegerComparison, EveryOperationIsWithinOneStep) {
  const PointMap<StepDifference> found = compare_operations(model_, *fake_, *integer_, samples_);
  const int64_t tokens = 120;
  const model::ModelConfig& c = model_.config;
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    const auto values = [&](Module module, Slot slot) { return found[{layer, module, slot}].values; };
    EXPECT_EQ(values(Module::input_norm, Slot::input), tokens * c.hidden_size);
    EXPECT_EQ(values(Module::input_norm, Slot::output), tokens * c.hidden_size);
    EXPECT_EQ(values(Module::v, Slot::output), tokens * c.num_kv_heads * c.head_dim);
    // Visible keys only: 40 · 41 / 2 of each sample and head.
    EXPECT_EQ(values(Module::qk_product, Slot::output), 3 * c.num_heads * 820);
    EXPECT_EQ(values(Module::pv_product, Slot::input), 3 * c.num_heads * 820);
    EXPECT_EQ(values(Module::pv_product, Slot::output), tokens * c.num_heads * c.head_dim);
    EXPECT_EQ(values(Module::down, Slot::input), tokens * c.intermediate_size);
    EXPECT_EQ(values(Module::down, Slot::output), tokens * c.hidden_size);
  }
  for (const Point& point : all_points(c)) {
    const StepDifference& difference = found[point];
    if (difference.values == 0) continue;
    if (point == Point{0, Module::final_norm, Slot::output}) {
      // The simulation leaves the final norm's input in float: a 16-bit tolerance.
      EXPECT_LE(difference.mean(), 2) << point_name(point);
      continue;
    }
    EXPECT_LE(difference.largest, 1) << point_name(point);
    EXPECT_LE(difference.different, difference.values / 100 + 1) << point_name(point);
  }
}

/// The mix takes the sum of a row's probabilities from the softmax. It was handed the simulation's
/// probabilities with the integer softmax's sums, and was off where the two differ: the more, the further the
/// values lie from 0.
TEST_F(IntegerComparison, TheMixSumsTheProbabilitiesThatItIsHanded) {
  for (model::LayerWeights& layer : model_.layers)
    layer.linears.at(Module::v).bias.assign(static_cast<size_t>(layer.linear(Module::v).weight.rows), 50.0F);
  for (int64_t layer = 0; layer < model_.config.num_layers; ++layer)
    qcfg_[{layer, Module::pv_product, Slot::output}].bits = 16;
  known_ = calibrate(model_, samples_, qcfg_, {}).ranges;
  ranges_ = complete_ranges(qcfg_, known_, model_.config, "test");
  const FakeArithmetic fake(model_, qcfg_, ranges_, 64);
  const IntegerArithmetic integer(model_, qcfg_, known_, 64);
  const PointMap<StepDifference> found = compare_operations(model_, fake, integer, samples_);
  int64_t probabilities = 0;
  for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
    probabilities += found[{layer, Module::pv_product, Slot::input}].different;
    EXPECT_LE((found[{layer, Module::pv_product, Slot::output}].largest), 1);
  }
  EXPECT_GT(probabilities, 0);  // else there was nothing to see
}

/// Biases were rounded to the unit of the sums of products: up to a hundredth of an 8-bit output's step, so
/// that one code in some hundred was another than the simulation's, whose biases are float. Models with
/// biases (StableLM-2) ended ten times as far from their simulation as those without.
TEST_F(IntegerComparison, BiasesAreAsExactAsTheSimulationHasThem) {
  tiny_.config.norm = model::NormKind::layer;
  tiny_.config.qkv_bias = tiny_.config.o_bias = tiny_.config.mlp_bias = true;
  for (const char* scheme : {"w8a8", "w4a8", "w8a16"}) {
    SCOPED_TRACE(scheme);
    scheme_ = scheme;
    build();
    const PointMap<StepDifference> found = compare_operations(model_, *fake_, *integer_, samples_);
    StepDifference eight, sixteen;
    for (const Point& point : all_points(model_.config)) {
      if (!is_linear(point.module) || is_after_blocks(point.module) || point.slot != Slot::output) continue;
      const StepDifference& difference = found[point];
      EXPECT_LE(difference.largest, 1) << point_name(point);
      StepDifference& all = qcfg_[point].bits > 8 ? sixteen : eight;
      all.values += difference.values;
      all.different += difference.different;
    }
    // Ties that float32 sums and exact ones break differently remain.
    EXPECT_LE(eight.different, eight.values / 10000);
    EXPECT_LE(sixteen.different, sixteen.values / 100);
  }
}

TEST_F(IntegerComparison, TakingNothingIsTheSimulationAndTakingAllTheIntegers) {
  const ComparingArithmetic nothing(model_, *fake_, *integer_);
  EXPECT_EQ(logits(nothing), logits(*fake_));
  const ComparingArithmetic all(model_, *fake_, *integer_, [](const Point&) { return true; });
  const std::vector<float> want = logits(*integer_);
  EXPECT_EQ(logits(all), want);
  EXPECT_NE(logits(*fake_), want);
}

TEST_F(IntegerComparison, TakingAllOfAFirstTokenApartIsTheIntegers) {
  first_token_apart_ = true;
  for (const char* scheme : {"w8a8", "w4a8", "w4a8-g8"}) {
    SCOPED_TRACE(scheme);
    scheme_ = scheme;
    build();
    expect_taking_all_is_integers(1e-3);
  }
}

/// Weights in groups at position 0, whose inputs have 16 bits: of one weight, of eight, with biases and
/// without.
TEST_F(IntegerComparison, GroupsOfAFirstTokenApartAreWithinOneStep) {
  first_token_apart_ = true;
  for (const char* scheme : {"w4a8-g8", "w4a8-sym-g4", "w8a8-g1", "w8a8-g8"}) {
    for (const bool biases : {false, true}) {
      SCOPED_TRACE(std::string(scheme) + (biases ? ", biases" : ""));
      scheme_ = scheme;
      tiny_.config.qkv_bias = tiny_.config.mlp_bias = biases;
      build();
      for (const auto& [point, difference] : compared()) {
        if (is_after_blocks(point.module)) continue;
        EXPECT_LE(difference.largest, is_norm(point.module) ? 4 : 1) << point_name(point);
        EXPECT_LE(difference.different, difference.values / 100 + 1) << point_name(point);
      }
    }
  }
}

TEST_F(IntegerComparison, SeesAnOperationThatIsWrong) {
  // Integers prepared from other weights of one projection: it is off, its neighbour fed the same input not.
  model::Model other = tiny_.build();
  std::swap(model_.layers[1].linears.at(Module::up), other.layers[1].linears.at(Module::up));
  const IntegerArithmetic wrong(model_, qcfg_, known_, 64);
  std::swap(model_.layers[1].linears.at(Module::up), other.layers[1].linears.at(Module::up));
  const ComparingArithmetic comparing(model_, *fake_, wrong);
  logits(comparing);
  const StepDifference& up = comparing.differences()[Point{1, Module::up, Slot::output}];
  EXPECT_GT(up.largest, 1);
  EXPECT_GT(up.mean(), 0.1);
  EXPECT_GT(up.different, 0);
  const Point untouched{1, Module::gate, Slot::output};
  EXPECT_LE(comparing.differences()[untouched].largest, 1);
}

/// A pruned layer: matrices of zeros, and so points whose range is [0, 0] and whose scales are the smallest.
TEST_F(IntegerComparison, TensorsOfZerosAreExact) {
  AlignedBuffer zeros(40 * 64 * sizeof(float));
  std::memset(zeros.data(), 0, zeros.size());
  for (const RangeEstimator estimator :
       {RangeEstimator::minmax, RangeEstimator::percentile, RangeEstimator::mse}) {
    for (const bool norm : {false, true}) {
      SCOPED_TRACE(std::string(name(estimator)) + (norm ? ", a norm" : ", matrices"));
      model_ = tiny_.build();
      model::LayerWeights& layer = model_.layers[1];
      if (norm) {
        for (auto& [module, weights] : layer.norms) std::ranges::fill(weights.weight, 0.0F);
      } else {
        for (const Module module : {Module::q, Module::v, Module::o, Module::gate, Module::down}) {
          model::Matrix& weight = layer.linears.at(module).weight;
          weight.stored = model::StoredWeight(zeros.as<float>(), weight.cols);
        }
      }
      estimator_ = estimator;
      measure();
      for (const Point& point : {Point{1, Module::v, Slot::output}, Point{1, Module::down, Slot::input},
                                 Point{1, Module::down, Slot::output}}) {
        EXPECT_EQ(ranges_[point]->lo, 0.0F) << point_name(point);
        EXPECT_EQ(ranges_[point]->hi, 0.0F) << point_name(point);
      }
      for (const auto& [point, difference] : compared()) {
        if (point.layer != 1 || is_after_blocks(point.module)) continue;
        EXPECT_LE(difference.largest, is_norm(point.module) ? 4 : 1) << point_name(point);
      }
      const auto exact = run_sample(model_, *model::make_float_arithmetic(model_, 64), samples_[0]);
      const auto fake = run_sample(model_, *fake_, samples_[0]);
      const auto integer = run_sample(model_, *integer_, samples_[0]);
      double lost = 0;
      for (size_t i = 0; i < exact.size(); ++i) {
        lost += std::abs(fake[i].log_probability - exact[i].log_probability) +
                std::abs(integer[i].log_probability - exact[i].log_probability);
      }
      // Not more than 8 bits lose of the other layer.
      EXPECT_LT(lost / static_cast<double>(2 * exact.size()), 0.5);
    }
  }
}

/// Integers of every form of block, with samples that are longer than what windows skip.
class IntegerForms : public IntegerComparison,
                     public testing::WithParamInterface<void (*)(model::ModelConfig&)> {
 protected:
  void expect_one_step();
};

TEST_P(IntegerForms, EveryOperationIsWithinOneStep) {
  expect_one_step();
}

/// Position 0 on 16-bit grids of its own, its keys and values among the others'.
TEST_P(IntegerForms, SoIsThatOfAFirstTokenApart) {
  first_token_apart_ = true;
  expect_one_step();
}

void IntegerForms::expect_one_step() {
  tiny_.config.head_dim = 8;
  GetParam()(tiny_.config);
  length_ = 100;
  model_ = tiny_.build();
  for (model::LayerWeights& layer : model_.layers) {
    if (model_.config.activation == model::Activation::xielu) layer.xielu = {0.3F, -0.2F, 0.5F, -1e-6F};
  }
  measure();
  const auto all = compared();
  EXPECT_GT(all.size(), 20U);
  for (const auto& [point, difference] : all) {
    if (point == Point{0, Module::final_norm, Slot::output}) {
      EXPECT_LE(difference.mean(), 2) << point_name(point);
      continue;
    }
    // Position 0's steps of 16 bits are as fine as what rotated queries and keys carry in float32.
    const bool fine = first_token_apart_ && point.module == Module::qk_product;
    EXPECT_LE(difference.largest, fine ? 2 : 1) << point_name(point);
    EXPECT_LE(difference.different, difference.values / 100 + 1) << point_name(point);
  }
  // To look on changes nothing, and to take all is to compute in integers.
  const ComparingArithmetic nothing(model_, *fake_, *integer_);
  EXPECT_EQ(logits(nothing), logits(*fake_));
}

INSTANTIATE_TEST_SUITE_P(Forms, IntegerForms,
                         testing::Values(test::sandwich_with_soft_caps, test::head_norms_and_local_rotary,
                                         test::update_norms, test::parallel_with_own_head_norms,
                                         test::parallel_with_two_norms, test::norms_behind_rotary,
                                         test::factors_and_yarn, test::positions_and_relu, test::windows,
                                         test::rotated, test::rotated_without_a_gate, test::dynamic_and_xielu,
                                         test::longrope_and_relu2));

/// What only the blocks of Gemma 4 have.
class IntegerLayers : public IntegerForms {};

TEST_P(IntegerLayers, EveryOperationIsWithinOneStep) {
  expect_one_step();
  expect_taking_all_is_integers();
}

INSTANTIATE_TEST_SUITE_P(Forms, IntegerLayers,
                         testing::Values(test::inputs_of_layers, test::experts_beside_an_mlp));

/// Factors of blocks are in the stream's unit, whatever they are; of 0 nothing would be left.
TEST_F(IntegerComparison, FactorsOfTheStreamMayBeSmallOrNegative) {
  test::inputs_of_layers(tiny_.config);
  for (const float factor : {0.03F, -0.7F, 40.0F}) {
    SCOPED_TRACE(factor);
    model_ = tiny_.build();
    for (model::LayerWeights& layer : model_.layers) layer.vectors.at(Module::layer_scalar) = {factor};
    measure();
    for (const auto& [point, difference] : compared()) {
      const bool end = point == Point{0, Module::final_norm, Slot::output};
      EXPECT_LE(end ? difference.mean() : difference.largest, end ? 2 : 1) << point_name(point);
    }
  }
  model_ = tiny_.build();
  model_.layers[1].vectors.at(Module::layer_scalar) = {0};
  EXPECT_THROW(measure(), Error);
}

/// Experts, chosen by integers as the simulation chooses them.
class IntegerExperts : public IntegerForms {};

TEST_P(IntegerExperts, EveryOperationIsWithinOneStep) {
  expect_one_step();
  for (const Point& point :
       {Point{0, Module::router, Slot::output}, Point{1, Module::expert_up, Slot::output},
        Point{1, Module::expert_down, Slot::input}, Point{1, Module::expert_down, Slot::output},
        Point{1, Module::expert_mix, Slot::input}, Point{1, Module::expert_mix, Slot::output}}) {
    const PointMap<StepDifference> found = compare_operations(model_, *fake_, *integer_, samples_);
    EXPECT_GT(found[point].values, 0) << point_name(point);
  }
  const ComparingArithmetic comparing(model_, *fake_, *integer_);
  logits(comparing);
  EXPECT_EQ(comparing.routed(), 2 * length_);
  EXPECT_EQ(comparing.routed_otherwise(), 0);
  expect_taking_all_is_integers();
}

TEST_P(IntegerExperts, DoNotDependOnTheBatch) {
  GetParam()(tiny_.config);
  build();
  const std::vector<float> alone = logits(*integer_);
  model::Decoder decoder(model_, *integer_);
  std::vector<model::KvSpan> spans;
  spans.reserve(samples_.size());
  model::Batch batch;
  std::vector<int64_t> rows;
  for (const auto& sample : {samples_[2], samples_[0], samples_[1]}) {
    spans.emplace_back(*integer_, length_, 1);
    batch.segments.push_back(
        {.first_row = std::ssize(batch.tokens), .length = length_, .first_position = 0, .kv = &spans.back()});
    for (int32_t i = 0; i < length_; ++i) {
      if (batch.segments.size() == 2) rows.push_back(std::ssize(batch.tokens));
      batch.tokens.push_back(sample[static_cast<size_t>(i)]);
      batch.positions.push_back(i);
    }
  }
  decoder.forward(batch);
  EXPECT_EQ(decoder.logits(rows), alone);
}

INSTANTIATE_TEST_SUITE_P(Forms, IntegerExperts,
                         testing::Values(test::experts, test::normalized_experts_without_a_shared_one,
                                         test::corrected_experts, test::experts_in_groups_of_a_sigmoid,
                                         test::experts_in_plain_groups, test::experts_near_the_best));

/// Integers end where the simulation does, but for the head's 8 bits and the final norm's 16, which the
/// simulation leaves in float. (check_families.py holds the same of families that came later.)
TEST(IntegerGoldens, LogProbabilitiesAreCloseToTheSimulation) {
  const std::filesystem::path goldens = test::goldens();
  std::vector<std::filesystem::path> paths;
  for (const char* architecture : {"llama", "gemma", "stablelm"}) {
    for (const char* scheme : {"w8a8", "w4a8", "w4a8-sym"}) {
      paths.push_back(goldens / "mobilequant" / (std::string(architecture) + "-" + scheme));
    }
  }
  for (const std::filesystem::path& path : paths) {
    SCOPED_TRACE(path.string());
    const model::Model model = model::load_model(path);
    const Quantization quantization = load_quantization(model, {}, {});
    const FakeArithmetic fake(model, quantization.qcfg, quantization.ranges, 64);
    const IntegerArithmetic integer(model, quantization.qcfg, quantization.known_ranges, 64);
    const auto answers = model::open_safetensors(path / "expected.safetensors");
    const model::TensorView& ids = answers->require("input_ids");
    double total = 0;
    int64_t count = 0;
    for (int64_t r = 0; r < ids.shape[0]; ++r) {
      std::vector<int32_t> sample;
      for (int64_t i = 0; i < ids.shape[1]; ++i) {
        int64_t id = 0;
        std::memcpy(&id, ids.bytes.data() + (r * ids.shape[1] + i) * 8, sizeof id);
        sample.push_back(static_cast<int32_t>(id));
      }
      const auto want = run_sample(model, fake, sample), got = run_sample(model, integer, sample);
      for (size_t i = 0; i < want.size(); ++i)
        total += std::abs(want[i].log_probability - got[i].log_probability);
      count += std::ssize(want);
    }
    EXPECT_LT(total / static_cast<double>(count), 0.05);
  }
}

}  // namespace
}  // namespace qeval::quant
