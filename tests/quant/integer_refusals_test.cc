// What integer-only arithmetic cannot compute is refused by the name of the point.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/integer/integer_arithmetic.h"
#include "quant/integer/prepare.h"
#include "tests/quant/tiny_ranges.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

class IntegerRefusals : public testing::Test {
 protected:
  IntegerRefusals()
      : model_(tiny_.build()), qcfg_(make_qcfg(model_.config, {})), ranges_(tiny_ranges(model_.config)) {}

  std::string message() {
    try {
      const IntegerArithmetic arithmetic(model_, qcfg_, ranges_, 8);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  test::TinyModel tiny_;
  model::Model model_;
  QuantConfig qcfg_;
  ActRanges ranges_;
};

TEST_F(IntegerRefusals, NameThePoint) {
  EXPECT_EQ(message(), "no error");
  const auto expect = [&](const Point& point, const QuantSpec& spec, const std::string& text) {
    const QuantSpec kept = qcfg_[point];
    qcfg_[point] = spec;
    EXPECT_THAT(message(), testing::HasSubstr(text));
    qcfg_[point] = kept;
  };
  expect({1, Module::up, Slot::output}, {}, "model.layers.1.mlp.w3.output");
  expect({1, Module::up, Slot::output}, {.bits = 8, .dynamic = true},
         "model.layers.1.mlp.w3.output: a dynamic");
  expect({0, Module::gate, Slot::weight}, {}, "w1.weight");
  expect({0, Module::gate, Slot::weight}, {.bits = 4, .per_channel = true, .group_size = 8}, "group_size 8");
  expect({1, Module::input_norm, Slot::weight}, {}, "model.layers.1.input_layernorm.weight");
  expect({1, Module::input_norm, Slot::input}, {}, "model.layers.1.input_layernorm.input");
  ranges_[{0, Module::q, Slot::output}] = Range{3e6F, 3e6F};
  EXPECT_THAT(message(), testing::HasSubstr("model.layers.0.self_attn.q_proj.output: the range"));
}

TEST_F(IntegerRefusals, TheLastRangeOfTheResidualMayBeMissing) {
  ranges_[{0, Module::final_norm, Slot::input}].reset();
  const PreparedModel prepared = prepare_model(model_, qcfg_, ranges_, 8);
  // Input of the last norm of the blocks plus the down projection's output: [−7 − 9, 7 + 10].
  const PointGrid sum = make_point_grid({.bits = 16}, {-16, 17});
  EXPECT_EQ(prepared.integers.layers.back().adds[1].output.codes, sum.codes);
  EXPECT_EQ(prepared.integers.final_norm.stream.codes, sum.codes);
  EXPECT_EQ(prepared.integers.final_norm.zero_point, sum.codes.zero_point);
}

}  // namespace
}  // namespace qeval::quant
