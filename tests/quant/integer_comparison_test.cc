// The instrument that runs the simulation and the integers on the same inputs.

#include <cmath>

#include <gtest/gtest.h>

#include "model/decoder.h"
#include "quant/calibration.h"
#include "quant/integer/comparison.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

class IntegerComparison : public testing::Test {
 protected:
  IntegerComparison() {
    tiny_.config.l2norm_as_rmsnorm = true;
    model_ = tiny_.build();
    for (int32_t s = 0; s < 3; ++s) {
      samples_.emplace_back();
      for (int32_t i = 0; i < 40; ++i) samples_.back().push_back((i * 7 + s * 11 + i * i) % 61);
    }
    qcfg_ = make_qcfg(model_.config, parse_scheme("w8a8"));
    known_ = calibrate(model_, samples_, qcfg_, {}).ranges;
    ranges_ = complete_ranges(qcfg_, known_, model_.config, "test");
    fake_ = std::make_unique<FakeArithmetic>(model_, qcfg_, ranges_, 64);
    integer_ = std::make_unique<IntegerArithmetic>(model_, qcfg_, known_, 64);
  }

  std::vector<float> logits(const model::Arithmetic& arithmetic) const {
    model::Decoder decoder(model_, arithmetic);
    model::KvSpan span(arithmetic, 40, 1);
    model::Batch batch;
    batch.tokens = samples_[0];
    std::vector<int64_t> rows;
    for (int32_t i = 0; i < 40; ++i) {
      batch.positions.push_back(i);
      rows.push_back(i);
    }
    batch.segments.push_back({.first_row = 0, .length = 40, .first_position = 0, .kv = &span});
    decoder.forward(batch);
    return decoder.logits(rows);
  }

  test::TinyModel tiny_;
  model::Model model_;
  Samples samples_;
  QuantConfig qcfg_;
  ActRanges known_, ranges_;
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
    EXPECT_LE(difference.different, difference.values / 50 + 1) << point_name(point);
  }
}

/// The mix takes the sum of a row's probabilities from the softmax. It was handed the simulation's
/// probabilities with the integer softmax's sums, and was off where the two differ: the more, the further the
/// values lie from 0.
TEST_F(IntegerComparison, TheMixSumsTheProbabilitiesThatItIsHanded) {
  for (model::LayerWeights& layer : model_.layers)
    layer.v.bias.assign(static_cast<size_t>(layer.v.weight.rows), 50.0F);
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

TEST_F(IntegerComparison, TakingNothingIsTheSimulationAndTakingAllTheIntegers) {
  const ComparingArithmetic nothing(model_, *fake_, *integer_);
  EXPECT_EQ(logits(nothing), logits(*fake_));
  const ComparingArithmetic all(model_, *fake_, *integer_, [](const Point&) { return true; });
  const std::vector<float> want = logits(*integer_);
  EXPECT_EQ(logits(all), want);
  EXPECT_NE(logits(*fake_), want);
}

TEST_F(IntegerComparison, SeesAnOperationThatIsWrong) {
  // Integers prepared from other weights of one projection: it is off, its neighbour fed the same input not.
  model::Model other = tiny_.build();
  std::swap(model_.layers[1].up, other.layers[1].up);
  const IntegerArithmetic wrong(model_, qcfg_, known_, 64);
  std::swap(model_.layers[1].up, other.layers[1].up);
  const ComparingArithmetic comparing(model_, *fake_, wrong);
  logits(comparing);
  const StepDifference& up = comparing.differences()[Point{1, Module::up, Slot::output}];
  EXPECT_GT(up.largest, 1);
  EXPECT_GT(up.mean(), 0.1);
  EXPECT_GT(up.different, 0);
  const Point untouched{1, Module::gate, Slot::output};
  EXPECT_LE(comparing.differences()[untouched].largest, 1);
}

}  // namespace
}  // namespace qeval::quant
