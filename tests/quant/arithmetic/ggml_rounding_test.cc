#include "quant/arithmetic/ggml_rounding.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace qeval::quant {
namespace {

std::vector<float> cubes(size_t count) {
  std::vector<float> x(count);
  uint32_t state = 12345;
  for (float& v : x) {
    state = state * 1664525U + 1013904223U;
    const float u = static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0F;
    v = u * u * u * 7;
  }
  return x;
}

/// Sum, sum weighted by i mod 17 − 8, and elements 3, 100, 255 of what llama.cpp's own functions make of
/// cubes(256) on x86 (from_float and to_float of its type traits).
TEST(GgmlRows, AreThoseOfGgmlsOwnFunctions) {
  const struct {
    double sum, weighted;
    float third, hundredth, last;
    GgmlRow type;
  } cases[] = {
      {-4.65655517578125, 17.921783447265625, -2.6991272F, 0.309082031F, 2.35559082F, GgmlRow::q8_0},
      {-4.65655517578125, 17.921783447265625, -2.6991272F, 0.309082031F, 2.35559082F, GgmlRow::q8_1},
      {-4.7380130849778652, 19.392808102071285, -2.69956613F, 0.330559134F, 2.36900711F, GgmlRow::q8_k},
      {-1.357421875, 29.69970703125, -2.62353516F, 0, 2.43896484F, GgmlRow::q4_0},
      {-2.31982421875, 59.0361328125, -2.87304688F, 0.209960938F, 2.45507812F, GgmlRow::q4_1},
      {-5.081298828125, 20.9453125, -2.62353516F, 0.408935547F, 2.43896484F, GgmlRow::q5_0},
      {-5.397216796875, 21.885498046875, -2.55419922F, 0.316894531F, 2.16503906F, GgmlRow::q5_1},
      {-4.5496724843978882, 20.398957073688507, -2.72460938F, 0.325927734F, 2.34179688F, GgmlRow::f16},
      {-4.4933516849059743, 20.044543202830027, -2.71875F, 0.326171875F, 2.34375F, GgmlRow::bf16}};
  for (const auto& c : cases) {
    SCOPED_TRACE(static_cast<int>(c.type));
    std::vector<float> x = cubes(256);
    round_row(c.type, x.data(), 256);
    double sum = 0, weighted = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      sum += static_cast<double>(x[i]);
      weighted += static_cast<double>(x[i]) * (static_cast<double>(i % 17) - 8);
    }
    EXPECT_EQ(x[3], c.third);
    EXPECT_EQ(x[100], c.hundredth);
    EXPECT_EQ(x[255], c.last);
    EXPECT_NEAR(sum, c.sum, 1e-9);
    EXPECT_NEAR(weighted, c.weighted, 1e-9);
  }
}

TEST(GgmlRows, ZerosStayAndNanIsNotHidden) {
  for (const GgmlRow type : {GgmlRow::f16, GgmlRow::bf16, GgmlRow::q8_0, GgmlRow::q8_k, GgmlRow::q4_0,
                             GgmlRow::q4_1, GgmlRow::q5_0, GgmlRow::q5_1}) {
    SCOPED_TRACE(static_cast<int>(type));
    std::vector<float> x(256, 0.0F);
    round_row(type, x.data(), 256);
    for (const float v : x) EXPECT_EQ(v, 0);
    x[40] = std::numeric_limits<float>::quiet_NaN();
    round_row(type, x.data(), 256);
    EXPECT_TRUE(std::isnan(x[40]));
  }
}

TEST(GgmlRows, HalvesHaveSubnormalsAndEnd) {
  float x[] = {0x1p-24F, 0x1p-26F, -0x1.8p-15F, 65519, 65520, -70000, 1.00048828125F};
  round_row(GgmlRow::f16, x, std::size(x));
  EXPECT_EQ(x[0], 0x1p-24F);
  EXPECT_EQ(x[1], 0);
  EXPECT_EQ(x[2], -0x1.8p-15F);
  EXPECT_EQ(x[3], 65504);
  EXPECT_EQ(x[4], INFINITY);
  EXPECT_EQ(x[5], -INFINITY);
  EXPECT_EQ(x[6], 1) << "a tie goes to the even neighbour";
}

TEST(GgmlRows, NamesOfKeysAndValues) {
  EXPECT_EQ(find_kv_type("q8_0"), GgmlRow::q8_0);
  EXPECT_FALSE(find_kv_type("q8_k"));
  EXPECT_FALSE(find_kv_type(""));
  EXPECT_EQ(dot_type(model::DType::q4_1), GgmlRow::q8_1);
  EXPECT_EQ(dot_type(model::DType::iq4_xs), GgmlRow::q8_k);
  EXPECT_EQ(dot_type(model::DType::mxfp4), GgmlRow::q8_0);
  EXPECT_FALSE(dot_type(model::DType::f8_e4m3));
}

}  // namespace
}  // namespace qeval::quant
