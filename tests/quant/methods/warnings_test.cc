#include "quant/methods/warnings.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "quant/arithmetic/integer/prepare.h"
#include "quant/methods/editable_model.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

class GridWarnings : public testing::Test {
 protected:
  /// The model as it is now, all its activation ranges [-1, 1] but for those in `ranges_`.
  std::vector<Warning> warnings(const Scheme& scheme) {
    const QuantConfig qcfg = make_qcfg(base_.config, scheme);
    ActRanges ranges = ranges_;
    for (const Point& point : all_points(base_.config)) {
      if (point.slot != Slot::weight && !ranges[point]) ranges[point] = Range{-1, 1};
    }
    return grid_warnings(model_.model(), qcfg, ranges);
  }
  void multiply(Module module, int64_t first, int64_t last, float factor) {
    const auto linear = model_.linear(1, module);
    for (int64_t i = first * linear.cols; i < last * linear.cols; ++i) linear.weight[i] *= factor;
  }

  test::TinyModel tiny_;
  model::Model base_ = tiny_.build();
  EditableModel model_{base_};
  ActRanges ranges_{base_.config.num_layers};
};

using Places = std::vector<std::string>;

TEST_F(GridWarnings, OrdinaryTensorsAndZerosHaveNone) {
  multiply(Module::q, 0, 40, 0.0F);
  multiply(Module::down, 3, 5, 0.0F);
  ranges_[{0, Module::gate, Slot::output}] = Range{0, 0};
  // A third of a 16-bit code's width: coarse for 16 bits, fine for what it holds.
  ranges_[{0, Module::o, Slot::output}] = Range{-0.1F, 0.1F};
  for (const char* scheme : {"w8a8", "w4a8", "w4a8-sym", "w8a16", "w4a16"})
    EXPECT_EQ(warnings(parse_scheme(scheme)), std::vector<Warning>{}) << scheme;
}

TEST_F(GridWarnings, TensorsBelowTheSmallestScaleAreNamed) {
  multiply(Module::o, 0, 24, 1e-5F);
  multiply(Module::down, 3, 5, 1e-38F);  // rows of their own grids, denormal
  model_.norm(0, Module::input_norm).weight.assign(24, 1e-7F);
  ranges_[{1, Module::activation, Slot::output}] = Range{0, 1e-4F};
  ranges_[{1, Module::pv_product, Slot::input}] = Range{0, 1e-6F};  // 16 bits
  for (const char* scheme : {"w8a8", "w4a8-sym"}) {
    const std::vector<Warning> found = warnings(parse_scheme(scheme));
    ASSERT_EQ(found.size(), 1U) << scheme;
    EXPECT_NE(found[0].what.find("1e-05"), std::string::npos) << found[0].what;
    const std::string o =
        std::string("model.layers.1.self_attn.o_proj.weight") + (scheme[1] == '4' ? " (24 of 24 grids)" : "");
    EXPECT_EQ(
        found[0].places,
        (Places{"model.layers.0.input_layernorm.weight", o, "model.layers.1.mlp.w2.weight (2 of 24 grids)",
                "model.layers.1.self_attn.pv_bmm.input", "model.layers.1.mlp.act_fn.output"}));
  }
}

TEST_F(GridWarnings, TensorsBeyondTheLargestScaleAreNamed) {
  multiply(Module::o, 0, 24, 1e15F);
  ranges_[{0, Module::o, Slot::output}] = Range{20000, 20000};  // the zero point would be 2e9
  const std::vector<Warning> found = warnings(parse_scheme("w8a8"));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_NE(found[0].what.find("1e+06"), std::string::npos) << found[0].what;
  EXPECT_EQ(found[0].places,
            (Places{"model.layers.1.self_attn.o_proj.weight", "model.layers.0.self_attn.o_proj.output"}));
}

/// Integers round the head, which the simulation leaves in float.
TEST_F(GridWarnings, OfIntegersLookAtTheHeadAsWell) {
  const std::vector<float> small(61 * 24, 1e-4F);
  model::Model model = base_;
  model.head.weight.stored = model::StoredWeight(small.data(), 24);
  const QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w4a16"));
  const ActRanges ranges(model.config.num_layers);
  EXPECT_EQ(grid_warnings(model, qcfg, ranges), std::vector<Warning>{});
  const std::vector<Warning> found = grid_warnings(model, integer_config(qcfg), ranges);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].places, Places{"lm_head.weight (61 of 61 grids)"});
}

TEST(ScaleChecks, BothEndsAndSigns) {
  ScaleCheck check("learned scales");
  check.add(0, "v to o", {1.0F, -1.0F, 1e-3F, 1e3F});
  EXPECT_TRUE(check.warnings().empty());
  check.add(2, "q to k", {-2e3F, 1.0F, 5e-4F});
  check.add(3, "q to k", {-5e3F});
  EXPECT_EQ(check.warnings(),
            (std::vector<Warning>{{"learned scales outside 0.001 ... 1000 (down to 0.0005, up to 5e+03)",
                                   {"layer 2 q to k (2 channels)", "layer 3 q to k (1 channel)"}}}));
}

TEST(WarningText, OneLineNamesTheFirstPlacesAndTheRecordAll) {
  const Warning warning{"scales", {"a", "b", "c", "d", "e", "f", "g", "h"}};
  EXPECT_EQ(one_line(warning), "scales: a, b, c, d, e, f and 2 more");
  EXPECT_EQ(one_line({"scales", {"a"}}), "scales: a");
  EXPECT_EQ(warnings_json({warning}).dump(),
            R"([{"what":"scales","places":["a","b","c","d","e","f","g","h"]}])");
}

}  // namespace
}  // namespace qeval::quant
