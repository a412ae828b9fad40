// What end-to-end learning minimises: the divergence of next-token distributions, and its gradient.
#include "quant/methods/learn/loss.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

std::vector<double> residual(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0.3, 2.0);
  std::vector<double> out(count);
  for (double& v : out) v = normal(random);
  return out;
}

struct HeadCase {
  const char* name;
  model::NormKind norm;
  bool final_norm = true;
  float factor = 1, softcap = 0;
};

class Logits : public testing::TestWithParam<HeadCase> {
 protected:
  Logits() {
    tiny_.config.norm = GetParam().norm;
    tiny_.config.final_norm = GetParam().final_norm;
    tiny_.config.logit_factor = GetParam().factor;
    tiny_.config.logit_softcap = GetParam().softcap;
    model_ = tiny_.build();
    for (int32_t i = 0; i < 61; ++i) model_.head.bias.push_back(0.05F * static_cast<float>(i % 7));
  }
  static constexpr size_t kTokens = 131;  // more than a tile of rows holds
  test::TinyModel tiny_{3};
  model::Model model_;
  std::vector<double> y_ = residual(kTokens * 24, 1), target_ = residual(kTokens * 24, 2), gradient_;

  double loss(const std::vector<double>& y) {
    LogitLoss<double> logits(model_);
    double loss = 0;
    logits.add(y, target_, 1, loss, gradient_);
    return loss;
  }
};
INSTANTIATE_TEST_SUITE_P(Heads, Logits,
                         testing::Values(HeadCase{"rms", model::NormKind::rms},
                                         HeadCase{"layer", model::NormKind::layer},
                                         HeadCase{"plain", model::NormKind::rms, false, 0.3F},
                                         HeadCase{"capped", model::NormKind::rms, true, 0.7F, 2.5F}),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST_P(Logits, TheGradientIsThatOfTheLoss) {
  ASSERT_GT(loss(y_), 0.1);
  const std::vector<double> gradient = gradient_;
  for (const size_t i : {size_t{0}, size_t{23}, size_t{500}, size_t{128 * 24}, y_.size() - 1}) {
    constexpr double kStep = 1e-5;
    std::vector<double> moved = y_;
    moved[i] += kStep;
    const double above = loss(moved);
    moved[i] -= 2 * kStep;
    const double below = loss(moved);
    const double expected = (above - below) / (2 * kStep);
    EXPECT_NEAR(gradient[i], expected, 1e-4 * std::abs(expected) + 1e-10) << i;
  }
}

TEST_P(Logits, EqualStreamsHaveNoLossAndNoGradient) {
  y_ = target_;
  EXPECT_NEAR(loss(y_), 0, 1e-12);
  for (const double g : gradient_) ASSERT_NEAR(g, 0, 1e-12);
}

/// The definition, by the plain sum over one token's vocabulary.
TEST_P(Logits, TheLossIsTheMeanDivergence) {
  const auto distribution = [&](const std::vector<double>& stream, size_t token) {
    const double* x = stream.data() + token * 24;
    double mean = 0;
    double square = 0;
    if (GetParam().norm == model::NormKind::layer) {
      for (int i = 0; i < 24; ++i) mean += x[i] / 24;
    }
    for (int i = 0; i < 24; ++i) square += (x[i] - mean) * (x[i] - mean) / 24;
    std::vector<double> p(61);
    double sum = 0;
    for (size_t v = 0; v < p.size(); ++v) {
      std::vector<float> row(24);
      model_.head.weight.decode_rows(static_cast<int64_t>(v), 1, row.data());
      p[v] = static_cast<double>(model_.head.bias[v]);
      for (size_t i = 0; i < 24; ++i) {
        double normed = x[i];
        if (GetParam().final_norm) {
          normed =
              (x[i] - mean) / std::sqrt(square + 1e-5) * static_cast<double>(model_.final_norm.weight[i]);
        }
        if (!model_.final_norm.bias.empty()) normed += static_cast<double>(model_.final_norm.bias[i]);
        p[v] += normed * static_cast<double>(row[i]);
      }
      p[v] *= static_cast<double>(GetParam().factor);
      const auto cap = static_cast<double>(GetParam().softcap);
      if (cap != 0) p[v] = cap * std::tanh(p[v] / cap);
      sum += std::exp(p[v]);
    }
    for (double& v : p) v = std::exp(v) / sum;
    return p;
  };
  double expected = 0;
  for (size_t token = 0; token < kTokens; ++token) {
    const std::vector<double> p = distribution(target_, token), q = distribution(y_, token);
    for (size_t v = 0; v < p.size(); ++v) expected += p[v] * std::log(p[v] / q[v]) / kTokens;
  }
  EXPECT_NEAR(loss(y_), expected, 1e-9 * expected);
}

TEST(LossNames, AreThoseOfTheOption) {
  EXPECT_EQ(parse_loss(loss_name(LearnLoss::logits)), LearnLoss::logits);
  EXPECT_EQ(parse_loss("output"), LearnLoss::output);
  EXPECT_THROW(parse_loss("kl"), Error);
}

}  // namespace
}  // namespace qeval::quant
