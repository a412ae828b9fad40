#include "quant/arithmetic/activation_rounding.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "model/checkpoint/stored_weight.h"

namespace qeval::quant {
namespace {

/// The nearest of the values a code has, the even code where two are.
float nearest(const float* values, int codes, float x) {
  int best = 0;
  for (int code = 1; code < codes; ++code) {
    const double is = std::abs(static_cast<double>(values[code]) - x);
    const double was = std::abs(static_cast<double>(values[best]) - x);
    if (is < was || (is == was && code % 2 == 0)) best = code;
  }
  return values[best];
}

TEST(ActivationRounding, FindsTheNearestE4m3AndE2m1Numbers) {
  const float* e4m3 = model::e4m3_values();
  const float* e2m1 = model::e2m1_values();
  std::vector<float> inputs{0, 448, 464, 1e9F, 0x1p-10F, 0x1.8p-9F, 0x1p-6F, 0.017F};
  for (int code = 0; code < 126; ++code) {  // numbers, and the middles between them
    inputs.push_back(e4m3[code]);
    inputs.push_back((e4m3[code] + e4m3[code + 1]) / 2);
    inputs.push_back(std::nextafter(inputs.back(), 1e9F));
    inputs.push_back(std::nextafter(inputs[inputs.size() - 2], 0.0F));
  }
  for (const float x : {0.25F, 0.75F, 1.25F, 1.75F, 2.5F, 3.5F, 5.0F, 5.5F, 7.0F, 0.3F, 2.6F})
    inputs.push_back(x);
  for (const float x : inputs) {
    EXPECT_EQ(round_e4m3(x), nearest(e4m3, 127, x)) << x;
    EXPECT_EQ(round_e4m3(-x), -nearest(e4m3, 127, x)) << x;
    EXPECT_EQ(round_e2m1(x), nearest(e2m1, 8, x)) << x;
    EXPECT_EQ(round_e2m1(-x), -nearest(e2m1, 8, x)) << x;
  }
  EXPECT_TRUE(std::isnan(round_e4m3(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(round_e2m1(std::numeric_limits<float>::quiet_NaN())));
}

std::vector<float> rounded(const model::ActivationRounding& rounding, std::vector<float> x) {
  round_activation(rounding, x.data(), std::ssize(x));
  return x;
}

TEST(ActivationRounding, OfIntegersByFixedAndOwnScales) {
  const model::ActivationRounding fixed{.symmetric = false, .scale = 0.5F, .zero_point = -3};
  EXPECT_EQ(rounded(fixed, {0.2F, 0.25F, 0.75F, 100, -100}), (std::vector<float>{0, 0.5F, 0.5F, 65, -62.5F}));
  // 127.5 steps to the largest magnitude, so that it is clamped on one side.
  const model::ActivationRounding token{.source = model::ActivationRounding::Scale::token};
  EXPECT_EQ(rounded(token, {255, 3, -255, 0}), (std::vector<float>{254, 4, -256, 0}));
  const model::ActivationRounding asymmetric{.source = model::ActivationRounding::Scale::token,
                                             .symmetric = false};
  EXPECT_EQ(rounded(asymmetric, {0, 255, 100.4F}), (std::vector<float>{0, 255, 100}));
  EXPECT_EQ(rounded(asymmetric, {10, 510}), (std::vector<float>{10, 510}));  // 0 is in every range
  for (const model::ActivationRounding& r : {token, asymmetric})
    EXPECT_EQ(rounded(r, {0, 0, 0}), (std::vector<float>{0, 0, 0}));
  EXPECT_TRUE(std::isnan(rounded(token, {1, std::numeric_limits<float>::quiet_NaN()})[1]));
}

TEST(ActivationRounding, CodesAreThoseOfTheRoundedNumbers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::vector<float>> rows{{255, 3, -255, 0},   {0, 255, 100.4F}, {10, 510},   {0, 0},
                                             {-3, -0.01F, 1e-3F}, {1e9F, 0.3F},     {-1e-40F, 0}};
  for (const bool symmetric : {true, false}) {
    for (const int bits : {4, 8}) {
      for (const model::ActivationRounding& r :
           {model::ActivationRounding{
                .bits = bits, .source = model::ActivationRounding::Scale::token, .symmetric = symmetric},
            model::ActivationRounding{
                .bits = bits, .symmetric = symmetric, .scale = 0.5F, .zero_point = symmetric ? 0 : 3}}) {
        ASSERT_TRUE(has_row_codes(r));
        for (const std::vector<float>& x : rows) {
          std::vector<int16_t> codes(x.size());
          const RowGrid grid = code_activation(r, x.data(), std::ssize(x), codes.data());
          const std::vector<float> want = rounded(r, x);
          for (size_t i = 0; i < x.size(); ++i)
            EXPECT_EQ(static_cast<float>(codes[i] - grid.zero_point) * grid.scale, want[i])
                << x[0] << " " << i;
        }
        std::vector<int16_t> codes(2);
        const std::vector<float> with_nan{1, nan};
        EXPECT_TRUE(std::isnan(code_activation(r, with_nan.data(), 2, codes.data()).scale));
      }
    }
  }
  EXPECT_FALSE(has_row_codes({.type = model::ActivationRounding::Type::e4m3}));
  EXPECT_FALSE(has_row_codes({.bits = 16}));
  EXPECT_FALSE(has_row_codes({.zero_point = 200}));
  EXPECT_FALSE(has_row_codes({.source = model::ActivationRounding::Scale::group, .group = 2}));
}

TEST(ActivationRounding, OfFloatsByTokensGroupsAndTwoLevels) {
  const model::ActivationRounding token{.type = model::ActivationRounding::Type::e4m3,
                                        .source = model::ActivationRounding::Scale::token};
  EXPECT_EQ(rounded(token, {896, 33, 0}), (std::vector<float>{896, 32, 0}));
  model::ActivationRounding bound = token;
  bound.upper_bound = 448;
  EXPECT_EQ(rounded(bound, {896, 33}), (std::vector<float>{448, 32}));
  const model::ActivationRounding group{.type = model::ActivationRounding::Type::e4m3,
                                        .source = model::ActivationRounding::Scale::group,
                                        .group = 2};
  EXPECT_EQ(rounded(group, {448, 17.2F, 0, 0, 896, 34.4F}), (std::vector<float>{448, 18, 0, 0, 896, 36}));
  // A mantissa of 1.75 and more counts as the next power of two.
  const model::ActivationRounding mx{.type = model::ActivationRounding::Type::e2m1,
                                     .source = model::ActivationRounding::Scale::power_of_two,
                                     .group = 2};
  EXPECT_EQ(rounded(mx, {6.9F, 1.2F, 7.0F, 1.2F}), (std::vector<float>{6, 1, 8, 1}));
  const model::ActivationRounding two{.type = model::ActivationRounding::Type::e2m1,
                                      .source = model::ActivationRounding::Scale::two_level,
                                      .group = 2,
                                      .global = 2,
                                      .global_divides = true};
  EXPECT_EQ(rounded(two, {12, 2.4F, 0, 0}), (std::vector<float>{12, 2, 0, 0}));
  model::ActivationRounding reciprocal = two;
  reciprocal.global = 0.5F;
  reciprocal.global_divides = false;
  EXPECT_EQ(rounded(reciprocal, {12, 2.4F, 0, 0}), (std::vector<float>{12, 2, 0, 0}));
  EXPECT_EQ(rounded(two, {1e-6F, 1e-7F}), (std::vector<float>{0, 0}));
}

}  // namespace
}  // namespace qeval::quant
