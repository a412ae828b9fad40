#include "quant/methods/mixed_precision.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/arithmetic/analysis.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/methods/quantize.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using test::TinyModel;

TEST(Patterns, MatchNamesAndTheirTails) {
  const char* name = "model.layers.3.mlp.w2.input";
  for (const char* pattern : {"model.layers.3.mlp.w2.input", "mlp.w2.input", "*.w2.input", "w2.input",
                              "input", "*", "*w?.input", "model.layers.?.mlp.*", "*3*2*t", "layers.3.*"}) {
    EXPECT_TRUE(matches(pattern, name)) << pattern;
  }
  for (const char* pattern : {"w2", "mlp.w2", "2.input", "w3.input", "", "model.layers.?.mlp", "*output",
                              "layers.33.*", "inputs", "?input"}) {
    EXPECT_FALSE(matches(pattern, name)) << pattern;
  }
}

class MixedPrecisionTest : public testing::Test {
 protected:
  void SetUp() override {
    tiny_.config.l2norm_as_rmsnorm = true;
    model_ = tiny_.build();
    qcfg_ = make_qcfg(model_.config, {});
    for (int64_t i = 0; i < 40; ++i) samples_[0].push_back(static_cast<int32_t>((i * 17 + 3) % 61));
    ranges_ = complete_ranges(qcfg_, calibrate(model_, samples_, qcfg_, {}).ranges, model_.config, "test");
  }
  TinyModel tiny_;
  model::Model model_;
  QuantConfig qcfg_;
  Samples samples_{1};
  ActRanges ranges_;
};

TEST_F(MixedPrecisionTest, RaisesWhatThePatternNames) {
  QuantConfig raised = qcfg_;
  EXPECT_EQ(raise_named("mlp.w2.input", model_.config, raised), 2);
  QuantConfig want = qcfg_;
  want[{0, Module::down, Slot::input}].bits = want[{1, Module::down, Slot::input}].bits = 16;
  EXPECT_EQ(raised, want);
  for (const char* pattern : {"mlp.w2.input",  // 16 bits already
                              "no.such.point", "lm_head.weight"}) {
    EXPECT_THROW(raise_named(pattern, model_.config, raised), Error) << pattern;
  }
  EXPECT_EQ(automatic_count("mlp.w2.input"), std::nullopt);
  EXPECT_EQ(automatic_count("auto:12"), 12);
  for (const char* wish : {"auto:0", "auto:", "auto:x", "auto:-1"}) {
    EXPECT_THROW(automatic_count(wish), Error) << wish;
  }
}

TEST_F(MixedPrecisionTest, FindsThePointThatCostsMost) {
  QuantConfig qcfg = qcfg_;
  const Point culprit{1, Module::up, Slot::output};
  qcfg[culprit].bits = 2;
  const auto points = quantized_points(qcfg, model_.config);
  const auto found = sensitivity(model_, samples_, qcfg, ranges_, points);
  ASSERT_EQ(found.size(), points.size());
  // Two bits at one point: large in size, whatever the sign on so few tokens.
  double largest = 0;
  Point at{};
  for (const PointSensitivity& point : found) {
    if (std::abs(point.loss) > largest) {
      largest = std::abs(point.loss);
      at = point.point;
    }
  }
  EXPECT_EQ(at, culprit) << point_name(at);
  EXPECT_TRUE(std::is_sorted(found.begin(), found.end(),
                             [](const auto& a, const auto& b) { return a.loss > b.loss; }));
  QuantConfig raised = qcfg;
  EXPECT_THAT(raise_most_sensitive(3, model_, samples_, ranges_, raised), testing::SizeIs(3));
  int64_t changed = 0;
  for (const Point& point : points) changed += raised[point] != qcfg[point] ? 1 : 0;
  EXPECT_EQ(changed, 3);
}

TEST_F(MixedPrecisionTest, ErrorsFallBySixDecibelsPerBit) {
  QuantConfig fine = qcfg_;
  const Point point{0, Module::gate, Slot::output}, weight{0, Module::gate, Slot::weight};
  fine[point].bits = fine[weight].bits = 11;
  const auto find = [&](const std::vector<PointError>& errors, const Point& wanted) {
    for (const PointError& error : errors) {
      if (error.point == wanted) return error;
    }
    ADD_FAILURE() << point_name(wanted);
    return PointError{};
  };
  const auto coarse_errors = quantization_errors(model_, samples_, qcfg_, ranges_);
  const auto fine_errors = quantization_errors(model_, samples_, fine, ranges_);
  EXPECT_EQ(coarse_errors.size(), quantized_points(qcfg_, model_.config).size());
  EXPECT_TRUE(std::is_sorted(coarse_errors.begin(), coarse_errors.end(), [](const auto& a, const auto& b) {
    return a.signal_to_noise < b.signal_to_noise;
  }));
  for (const Point& p : {point, weight}) {
    EXPECT_NEAR(find(fine_errors, p).signal_to_noise - find(coarse_errors, p).signal_to_noise, 18.1, 1.0)
        << point_name(p);
  }
  // The zero point is rounded: an extreme may stand half a step outside.
  EXPECT_LT(find(coarse_errors, point).clipped, 0.01);
  ActRanges narrow = ranges_;
  narrow[point] = Range{-0.1F, 0.1F};
  EXPECT_GT(find(quantization_errors(model_, samples_, qcfg_, narrow), point).clipped, 0.5);
}

TEST_F(MixedPrecisionTest, QuantizeRunsTheMethodAndHonoursItsOptions) {
  QuantizeOptions options;
  options.method = Method::smoothquant;
  options.keep_16bit = {"mlp.w2.input"};
  const QuantizedModel smoothed = quantize(model_, samples_, options);
  EXPECT_TRUE(smoothed.edited.has_value());
  EXPECT_EQ((smoothed.qcfg[{1, Module::down, Slot::input}].bits), 16);
  EXPECT_TRUE(smoothed.model().config.l2norm_as_rmsnorm);
  // Ranges are those of the smoothed model.
  EXPECT_NE((smoothed.ranges[{0, Module::input_norm, Slot::output}]),
            (ranges_[{0, Module::input_norm, Slot::output}]));

  QuantizeOptions given;
  given.act_ranges = ranges_;
  const QuantizedModel rounded = quantize(model_, samples_, given);
  EXPECT_FALSE(rounded.edited.has_value());
  EXPECT_EQ(rounded.ranges, ranges_);
  given.act_ranges = ActRanges(model_.config.num_layers);
  EXPECT_THROW(quantize(model_, samples_, given), Error);
}

/// Calibration leaves the sigmoid's range to its default, and the search for the worst points failed on it
/// with "bad optional access".
TEST_F(MixedPrecisionTest, QuantizeFindsTheWorstPointsOfASiluModel) {
  ASSERT_EQ(model_.config.activation, model::Activation::silu);
  QuantizeOptions options;
  const auto raised = [&] {
    const QuantizedModel quantized = quantize(model_, samples_, options);
    int64_t count = 0;
    for (const Point& point : quantized_points(qcfg_, model_.config))
      count += quantized.qcfg[point] != qcfg_[point] ? 1 : 0;
    return count;
  };
  options.keep_16bit = {"auto:3"};
  EXPECT_EQ(raised(), 3);
  options.act_ranges = ranges_;
  (*options.act_ranges)[{0, Module::activation, Slot::input2}].reset();
  EXPECT_EQ(raised(), 3);
}

/// A range narrowed for 8 bits cut off what 16 hold with ease.
TEST_F(MixedPrecisionTest, RaisedPointsKeepMinAndMax) {
  QuantizeOptions options;
  options.calibration = {.estimator = RangeEstimator::percentile, .percentile = 90};
  const ActRanges narrowed = quantize(model_, samples_, options).ranges;
  for (const char* wish : {"mlp.w2.input", "auto:4"}) {
    options.keep_16bit = {wish};
    const QuantizedModel quantized = quantize(model_, samples_, options);
    int64_t raised = 0;
    for (const Point& point : quantized_points(qcfg_, model_.config)) {
      if (point.slot == Slot::weight) continue;
      const bool is_raised = quantized.qcfg[point].bits > qcfg_[point].bits;
      raised += is_raised ? 1 : 0;
      EXPECT_EQ(quantized.ranges[point], (is_raised ? ranges_ : narrowed)[point]) << point_name(point);
    }
    EXPECT_EQ(raised, std::string(wish) == "auto:4" ? 4 : 2);
  }
  EXPECT_NE((narrowed[{0, Module::down, Slot::input}]), (ranges_[{0, Module::down, Slot::input}]));
}

}  // namespace
}  // namespace qeval::quant
