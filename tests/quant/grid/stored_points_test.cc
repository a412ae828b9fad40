// A quantized checkpoint's own grids, as the points of a configuration.

#include "quant/grid/stored_points.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quant/grid/quantized_matrix.h"
#include "quant/grid/stored_codes.h"
#include "tests/model/fixtures.h"
#include "tests/reference_data.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using model::ActivationRounding;
using testing::ElementsAre;
using testing::HasSubstr;

class StoredPointsTest : public testing::Test {
 protected:
  StoredPointsTest() {
    tiny_.config.qk_norm = model::QkNorm::head;
    model_ = tiny_.build();
    float scale = 0.01F;
    for (model::LayerWeights& layer : model_.layers) {
      for (auto& [module, linear] : layer.linears) {
        linear.weight.stored = store_codes(quantize_matrix(linear.weight, kWeight));
        linear.input = ActivationRounding{.scale = scale_of_inputs(module)};
        linear.output = ActivationRounding{.scale = scale += 0.0137F};
      }
    }
  }
  /// Queries, keys and values read one tensor, gate and up another.
  static float scale_of_inputs(Module module) {
    if (module == Module::q || module == Module::k || module == Module::v) return 0.031F;
    return module == Module::gate || module == Module::up ? 0.047F : 0.0213F;
  }
  StoredPoints points() const { return stored_points(model_, parse_scheme("stored")); }
  model::LinearWeights& linear(Module module) { return model_.layers[1].linears.at(module); }

  static constexpr QuantSpec kWeight{.bits = 4, .symmetric = true, .per_channel = true};
  test::TinyModel tiny_;
  model::Model model_;
};

TEST_F(StoredPointsTest, CodesAndScalesAreWhatIsStored) {
  const StoredPoints stored = points();
  EXPECT_THAT(stored.rounded, ElementsAre());
  for (const auto& [module, own] : model_.layers[1].linears) {
    EXPECT_EQ((stored.qcfg[{1, module, Slot::weight}]), kWeight);
    for (const auto& [slot, rounding] : {std::pair{Slot::input, own.input}, {Slot::output, own.output}}) {
      const Point point{1, module, slot};
      ASSERT_TRUE(stored.ranges[point]) << point_name(point);
      const Grid grid = make_grid(stored.qcfg[point], *stored.ranges[point]);
      EXPECT_EQ(grid.scale, rounding->scale) << point_name(point);
      EXPECT_EQ(grid.q_min, -128);
      EXPECT_EQ(grid.zero_point, 0);
    }
  }
  EXPECT_FALSE((stored.ranges[{1, Module::input_norm, Slot::input}]));  // to be measured
}

/// Rounding twice on one grid is rounding once.
TEST_F(StoredPointsTest, OneTensorHasOneGrid) {
  const StoredPoints stored = points();
  const auto expect_same = [&](const Point& a, const Point& b) {
    EXPECT_EQ(stored.qcfg[a], stored.qcfg[b]) << point_name(a);
    ASSERT_TRUE(stored.ranges[a] && stored.ranges[b]) << point_name(a);
    EXPECT_EQ(stored.ranges[a]->hi, stored.ranges[b]->hi) << point_name(a);
  };
  expect_same({1, Module::input_norm, Slot::output}, {1, Module::k, Slot::input});
  expect_same({1, Module::pv_product, Slot::output}, {1, Module::o, Slot::input});
  expect_same({1, Module::q_norm, Slot::input}, {1, Module::q, Slot::output});
  expect_same({0, Module::post_attention_norm, Slot::output}, {0, Module::up, Slot::input});
}

TEST_F(StoredPointsTest, ReadersThatDifferLeaveSixteenBits) {
  linear(Module::up).input->scale = 0.05F;
  linear(Module::v).input.reset();
  linear(Module::q).output.reset();
  const StoredPoints stored = points();
  for (const Module norm : {Module::input_norm, Module::post_attention_norm}) {
    EXPECT_EQ((stored.qcfg[{1, norm, Slot::output}].bits), 16);
    EXPECT_FALSE((stored.ranges[{1, norm, Slot::output}]));
  }
  EXPECT_FALSE((stored.ranges[{1, Module::q_norm, Slot::input}]));
  EXPECT_EQ((stored.qcfg[{0, Module::input_norm, Slot::output}].bits), 8);
}

TEST_F(StoredPointsTest, WhatHasNoCodesGetsEightBitsPerChannel) {
  test::TinyModel other;
  const model::Model floats = other.build();
  linear(Module::o).weight = floats.layers[1].linear(Module::o).weight;
  const StoredPoints stored = points();
  EXPECT_THAT(stored.rounded, ElementsAre("model.layers.1.self_attn.o_proj.weight"));
  const QuantSpec want{.bits = 8, .symmetric = true, .per_channel = true};
  EXPECT_EQ((stored.qcfg[{1, Module::o, Slot::weight}]), want);
}

TEST_F(StoredPointsTest, AsymmetricRangesKeepTheirZeroPoint) {
  linear(Module::o).output = ActivationRounding{.symmetric = false, .scale = 0.25F, .zero_point = -7};
  const StoredPoints stored = points();
  const Point point{1, Module::o, Slot::output};
  const Grid grid = make_grid(stored.qcfg[point], *stored.ranges[point]);
  EXPECT_EQ(grid.scale, 0.25F);
  EXPECT_EQ(grid.zero_point, 121);  // of codes from 0 on
}

TEST_F(StoredPointsTest, WhatIsNotStaticIsRefusedByName) {
  const auto refusal = [&] { return model::fixtures::error_of([&] { points(); }); };
  linear(Module::o).output = ActivationRounding{.source = ActivationRounding::Scale::token};
  EXPECT_THAT(refusal(), HasSubstr("model.layers.1.self_attn.o_proj.output is rounded by other rules"));
  linear(Module::o).output = ActivationRounding{.type = ActivationRounding::Type::e4m3};
  EXPECT_THAT(refusal(), HasSubstr("o_proj.output"));
  linear(Module::o).output = ActivationRounding{.scale = 1e-7F};
  EXPECT_THAT(refusal(), HasSubstr("in steps of 1e-07"));
  test::TinyModel tiny;
  const model::Model plain = tiny.build();
  EXPECT_THAT(model::fixtures::error_of([&] { stored_points(plain, parse_scheme("stored")); }),
              HasSubstr("stores neither codes nor ranges"));
}

/// Scales of half precision are numbers like any other.
TEST(StoredPointsGoldens, ACheckpointOfStaticInt8KeepsItsCodes) {
  const model::Model model = model::load_model(test::goldens() / "quantized/ct-w8a8-int-static");
  const StoredPoints stored = stored_points(model, parse_scheme("stored"));
  EXPECT_THAT(stored.rounded, ElementsAre());
  for (const auto& [module, own] : model.layers[0].linears) {
    const QuantizedMatrix codes = quantized_weight(own.weight, stored.qcfg[{0, module, Slot::weight}]);
    const int64_t rows = own.weight.rows, cols = own.weight.cols;
    std::vector<float> want(static_cast<size_t>(rows * cols)), got(want.size());
    own.weight.decode_rows(0, rows, want.data());
    const model::WeightView made = view(codes, nullptr);
    made.decode(made.context,
                {.row = 0, .rows = rows, .col = 0, .cols = cols, .out = got.data(), .stride = cols});
    EXPECT_EQ(got, want) << model::module_name(module);
  }
}

}  // namespace
}  // namespace qeval::quant
