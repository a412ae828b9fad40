#include "quant/methods/layer_errors.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/quant/reference_forward.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

Samples short_samples() {
  Samples all(2);
  for (int32_t i = 0; i < 30; ++i) all[0].push_back(i * 17 % 61);
  for (int32_t i = 0; i < 12; ++i) all[1].push_back(i * 5 % 61);
  return all;
}

std::vector<double> errors(const model::Model& model, Scheme scheme) {
  QuantizeOptions options;
  options.scheme = scheme;
  return layer_errors(quantize(model, short_samples(), options), short_samples());
}

TEST(LayerErrors, GrowAsBitsGo) {
  test::TinyModel tiny;
  const model::Model model = tiny.build();
  const auto with = [&](int weight_bits, int activation_bits) {
    Scheme scheme;
    scheme.weight.bits = weight_bits;
    scheme.activation_bits = activation_bits;
    return errors(model, scheme);
  };
  const auto nothing = with(32, 32), fine = with(16, 16), w8a8 = with(8, 8), w4a8 = with(4, 8);
  ASSERT_EQ(nothing.size(), 2U);
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_LT(nothing[layer], 1e-6);
    EXPECT_LT(fine[layer], w8a8[layer]);
    EXPECT_LT(w8a8[layer], w4a8[layer]);
    EXPECT_GT(w8a8[layer], 0);
    EXPECT_LT(w4a8[layer], 2);
  }
}

/// Σ (quantized − float)² / Σ float² behind every block, by the slow reference. Weights are rounded to 4 bits
/// by their rows' own ranges and nothing else, so that no value can fall on the other side of a step.
TEST(LayerErrors, AreThoseOfTheSlowReference) {
  test::TinyModel tiny;
  tiny.config.l2norm_as_rmsnorm = true;
  const model::Model model = tiny.build();
  Scheme scheme;
  scheme.weight = {.bits = 4, .per_channel = true};
  scheme.activation_bits = 32;
  const std::vector<double> got = errors(model, scheme);
  std::vector<double> wrong(2), size(2);
  for (const auto& sample : short_samples()) {
    test::ReferenceForward exact(model, [](const Point&, test::Rows&) {});
    test::ReferenceForward rounded(model, [](const Point& point, test::Rows& x) {
      if (point.slot != Slot::weight || x.rows == 1) return;  // norms keep their weights
      for (int64_t r = 0; r < x.rows; ++r) {
        float* row = &x.at(r, 0);
        const auto [lo, hi] = std::minmax_element(row, row + x.cols);
        const float step = (*hi - *lo) / 15, zero = -std::nearbyint(*lo / step);
        for (float* w = row; w < row + x.cols; ++w)
          *w = (std::clamp(std::nearbyint(*w / step) + zero, 0.0F, 15.0F) - zero) * step;
      }
    });
    exact.logits(sample);
    rounded.logits(sample);
    for (size_t layer = 0; layer < 2; ++layer) {
      for (size_t i = 0; i < exact.streams[layer].values.size(); ++i) {
        const double x = exact.streams[layer].values[i], y = rounded.streams[layer].values[i];
        wrong[layer] += (y - x) * (y - x);
        size[layer] += x * x;
      }
    }
  }
  ASSERT_EQ(got.size(), 2U);
  for (size_t layer = 0; layer < 2; ++layer)
    EXPECT_NEAR(got[layer] * size[layer] / wrong[layer], 1, 1e-3) << layer;
}

}  // namespace
}  // namespace qeval::quant
