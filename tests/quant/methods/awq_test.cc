#include "quant/methods/awq.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "quant/calibrate/observer.h"
#include "quant/methods/gptq.h"
#include "quant/methods/quantize.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

/// A model with a few loud channels behind its norms.
class Awq : public testing::Test {
 protected:
  Awq() {
    tiny_.config.num_kv_heads = tiny_.config.num_heads;  // so that v to o is an edge, too
    tiny_.config.qkv_bias = true;
    base_ = tiny_.build();
    for (model::LayerWeights& layer : base_.layers) {
      for (auto& [module, norm] : layer.norms) {
        norm.weight[3] *= 20;
        norm.weight[11] *= 8;
      }
    }
  }
  std::vector<double> log_probabilities(const model::Model& model) const {
    const auto arithmetic = model::make_float_arithmetic(model, 64);
    std::vector<double> all;
    for (const auto& sample : test::two_samples()) {
      for (const auto& answer : run_sample(model, *arithmetic, sample)) all.push_back(answer.log_probability);
    }
    return all;
  }
  test::TinyModel tiny_;
  model::Model base_;
};

TEST_F(Awq, ScalesKeepTheFunctionAndLowerTheRoundingsError) {
  const std::vector<double> before = log_probabilities(base_);
  for (const char* name : {"w4a16", "w4a16-g8", "w3a16-sym"}) {
    SCOPED_TRACE(name);
    const QuantConfig qcfg = make_qcfg(base_.config, parse_scheme(name));
    EditableModel edited(base_);
    scale_by_activations(edited, qcfg, test::two_samples());
    const std::vector<double> after = log_probabilities(edited.model());
    // Loud channels make scores of hundreds, whose float32 shows: 1.3e-4 at most on the CPU paths.
    for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(after[i], before[i], 4e-4);
    // Scaled, channel 3 takes less from the grid that it shares.
    const auto rounded = [&](EditableModel& model) {
      round_weights(model, qcfg, test::two_samples(), {Rounding::nearest, WeightRange::mse}, {});
      double error = 0;
      const std::vector<double> found = log_probabilities(model.model());
      for (size_t i = 0; i < before.size(); ++i) error += (found[i] - before[i]) * (found[i] - before[i]);
      return error;
    };
    EditableModel plain(base_);
    EXPECT_LT(rounded(edited), rounded(plain));
  }
}

TEST_F(Awq, ALargerMapIsLeftAlone) {
  QuantConfig qcfg = make_qcfg(base_.config, parse_scheme("w4a16"));
  for (const Point& point : all_points(base_.config)) {
    if (point.slot == Slot::weight && qcfg[point].enabled()) qcfg[point].bits = 16;
  }
  EditableModel edited(base_);
  EXPECT_TRUE(scale_by_activations(edited, qcfg, test::two_samples()).empty());
  EXPECT_EQ(log_probabilities(edited.model()), log_probabilities(base_));
}

TEST(OutputGrids, ChangeTheOutputLeast) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  constexpr int64_t kRows = 5, kCols = 48, kTokens = 70;
  std::vector<float> w(kRows * kCols), x(kTokens * kCols);
  for (float& value : w) value = normal(random);
  w[7] = 6.0F;
  for (int64_t i = 0; i < kTokens * kCols; ++i)
    x[static_cast<size_t>(i)] = normal(random) * (i % kCols == 7 ? 0.01F : 1.0F);
  const model::Matrix matrix{
      .name = "test", .rows = kRows, .cols = kCols, .stored = model::StoredWeight(w.data(), kCols)};
  InputProducts products;
  products.add(x.data(), kTokens, kCols);
  for (const QuantSpec& spec :
       {QuantSpec{.bits = 4}, QuantSpec{.bits = 4, .per_channel = true},
        QuantSpec{.bits = 3, .symmetric = true, .per_channel = true, .group_size = 16}}) {
    const std::vector<Grid> grids = output_grids(matrix, spec, products.lower());
    const std::vector<Range> ranges = weight_ranges(matrix, spec);
    ASSERT_EQ(grids.size(), ranges.size());
    const int64_t group = spec.group_size > 0 ? spec.group_size : kCols;
    // The error of the elements that share a grid, token by token.
    const auto error = [&](size_t at, const Grid& grid) {
      double sum = 0;
      const int64_t groups = kCols / group;
      const bool whole = grids.size() == 1;
      for (int64_t r = whole ? 0 : static_cast<int64_t>(at) / groups;
           r < (whole ? kRows : static_cast<int64_t>(at) / groups + 1); ++r) {
        const int64_t first = whole ? 0 : static_cast<int64_t>(at) % groups * group;
        std::vector<float> d(static_cast<size_t>(group));
        quant_kernels().fake_quantize(w.data() + r * kCols + first, group, grid, d.data());
        for (int64_t t = 0; t < kTokens; ++t) {
          double y = 0;
          for (int64_t j = 0; j < group; ++j) {
            y += (double{d[static_cast<size_t>(j)]} - double{w[static_cast<size_t>(r * kCols + first + j)]}) *
                 double{x[static_cast<size_t>(t * kCols + first + j)]};
          }
          sum += y * y;
        }
      }
      return sum;
    };
    int narrowed = 0;
    for (size_t i = 0; i < grids.size(); ++i) {
      const double found = error(i, grids[i]);
      for (int k = 0; k <= 10; ++k) {
        const float f = 1.0F - static_cast<float>(k) / 20.0F;
        EXPECT_LE(found, error(i, storable_grid(spec, {f * ranges[i].lo, f * ranges[i].hi})) * 1.0001);
      }
      narrowed += grids[i] != storable_grid(spec, ranges[i]) ? 1 : 0;
    }
    EXPECT_GT(narrowed, 0);
  }
}

}  // namespace
}  // namespace qeval::quant
