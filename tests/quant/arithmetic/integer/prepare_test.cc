// What integer-only arithmetic cannot compute is refused by the name of the point.

#include "quant/arithmetic/integer/prepare.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/arithmetic/integer/integer_arithmetic.h"
#include "tests/model/fixtures.h"
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
  expect({0, Module::head, Slot::weight}, {.bits = 4, .per_channel = true, .group_size = 8},
         "lm_head.weight: group_size 8");
  expect({1, Module::input_norm, Slot::weight}, {}, "model.layers.1.input_layernorm.weight");
  expect({1, Module::input_norm, Slot::input}, {}, "model.layers.1.input_layernorm.input");
  const auto expect_range = [&](const Point& point, Range range, const std::string& text) {
    const auto kept = ranges_[point];
    ranges_[point] = range;
    EXPECT_THAT(message(), testing::HasSubstr(text));
    ranges_[point] = kept;
  };
  // 2^16 codes on [10, 11]: 720,885 steps from 0, where the stream holds 2^18.
  expect_range({1, Module::input_norm, Slot::input}, {10, 11},
               "model.layers.1.input_layernorm.input: the range [10, 11] reaches 720885 of its steps");
  expect_range({0, Module::final_norm, Slot::input}, {-11, -10},
               "model.norm.input: the range [-11, -10] reaches");
  qcfg_[{1, Module::down, Slot::output}].bits = 2;
  expect_range({1, Module::down, Slot::output}, {-400, 400}, "model.layers.1.mlp.w2.output: a step of 266");
  qcfg_[{1, Module::down, Slot::output}].bits = 16;
  ranges_[{0, Module::q, Slot::output}] = Range{3e6F, 3e6F};
  EXPECT_THAT(message(), testing::HasSubstr("model.layers.0.self_attn.q_proj.output: the range"));
}

/// A NaN became some integer, and the model's answer a finite score.
TEST_F(IntegerRefusals, NameTheTokenWhoseEmbeddingIsNotFinite) {
  const int64_t width = model_.config.hidden_size;
  std::vector<float> rows(static_cast<size_t>(model_.embedding.rows * width));
  model_.embedding.decode_rows(0, model_.embedding.rows, rows.data());
  model_.embedding.stored = model::StoredWeight(rows.data(), width);
  rows[static_cast<size_t>(7 * width + 3)] = std::numeric_limits<float>::quiet_NaN();
  rows[static_cast<size_t>(9 * width)] = std::numeric_limits<float>::infinity();
  const IntegerArithmetic arithmetic(model_, qcfg_, ranges_, 8);
  model::Tensor residual;
  const std::vector<int32_t> positions{0, 1, 2};
  const auto embed = [&](std::vector<int32_t> tokens) { arithmetic.embed(tokens, {positions}, residual); };
  EXPECT_NO_THROW(embed({6, 8, 10}));
  for (const int32_t token : {7, 9}) {
    EXPECT_THAT(model::fixtures::error_of([&] {
                  embed({6, token});
                }),
                testing::HasSubstr("row of token " + std::to_string(token)));
  }
}

/// Probabilities on a range that excludes 0 each stand for the code nearest to it: their sum has no bound
/// of 1.
TEST(IntegerBounds, TheMixHasRoomForProbabilitiesThatAreNeverZero) {
  const PointGrid values = make_point_grid({.bits = 8}, {-4, 4});
  const int64_t keys = 1000;
  for (const Range range : {Range{-2, -1}, Range{0, 1}, Range{1, 2}}) {
    const PointGrid p = make_point_grid({.bits = 16}, range);
    const AttentionGrids grids{values, values, values, values, values, p, values};
    const model::AttentionOp op{.heads = 1, .kv_heads = 1, .head_dim = 8, .value_dim = 8};
    const IntegerAttention a = prepare_attention(op, keys, grids);
    const double code = std::max({0, p.codes.lo - p.codes.zero_point, p.codes.zero_point - p.codes.hi});
    const double sum = static_cast<double>(keys) * code * static_cast<double>(values.reach());
    EXPECT_LT(std::ldexp(sum, a.mix_factor.room - a.mix_factor.pre_shift), 0x1p31) << range.lo;
  }
}

TEST_F(IntegerRefusals, TheLastRangeOfTheResidualMayBeMissing) {
  ranges_[{0, Module::final_norm, Slot::input}].reset();
  const PreparedModel prepared = prepare_model(model_, qcfg_, ranges_, 8);
  // Input of the last norm of the blocks plus the down projection's output: [−7 − 9, 7 + 10].
  const PointGrid sum = make_point_grid({.bits = 16}, {-16, 17});
  EXPECT_EQ(prepared.integers.layers.back().adds.at(Module::down).output.codes, sum.codes);
  EXPECT_EQ(prepared.integers.final_norm.stream.codes, sum.codes);
  EXPECT_EQ(prepared.integers.final_norm.zero_point, sum.codes.zero_point);
}

/// In a block with several additions after the last reader, all of them reach.
TEST_F(IntegerRefusals, TheLastRangeIsWhatAllAdditionsReach) {
  tiny_.config.form = model::BlockForm::parallel;
  tiny_.config.residual_factor = 0.5F;
  model_ = tiny_.build();
  qcfg_ = make_qcfg(model_.config, {});
  ranges_ = tiny_ranges(model_.config);
  ranges_[{0, Module::final_norm, Slot::input}].reset();
  const PreparedModel prepared = prepare_model(model_, qcfg_, ranges_, 8);
  // The norm's input and half of both updates: [−7 − 9/2 − 9/2, 7 + 10/2 + 10/2].
  EXPECT_EQ(prepared.grids.stream.grid, make_point_grid({.bits = 16}, {-16, 17}));
}

/// An operation without an integer form is refused by its name, whatever the configuration says.
TEST_F(IntegerRefusals, NameTheOperation) {
  const model::ModelConfig plain = tiny_.config;
  const auto expect = [&](void (*form)(model::ModelConfig&), const std::string& text) {
    tiny_.config = plain;
    form(tiny_.config);
    model_ = tiny_.build();
    qcfg_ = make_qcfg(model_.config, {});
    ranges_ = tiny_ranges(model_.config);
    EXPECT_THAT(message(), testing::HasSubstr("llama model: integer arithmetic has no " + text));
  };
  expect(
      [](model::ModelConfig& c) {
        c.latent = model::LatentAttention{.q_rank = 8, .kv_rank = 6, .nope = 6, .rope = 4, .value_dim = 5};
        c.num_kv_heads = c.num_heads;
      },
      "latent attention; accepted: float arithmetic");
  expect([](model::ModelConfig& c) { c.qkv_clip = 1; }, "clamp; accepted: float arithmetic");
  expect([](model::ModelConfig& c) { c.attention_sinks = true; }, "attention with sinks");
  expect(
      [](model::ModelConfig& c) {
        c.experts.emplace();
        c.experts->inner = 8;
        c.experts->route = {.experts = 4, .used = 2};
        c.experts->limit = 7;
        c.layers.assign(2, {.sparse = true});
      },
      "clamped SwiGLU; accepted: float arithmetic");
  expect([](model::ModelConfig& c) { c.form = model::BlockForm::after_add; }, "norm of the residual stream");
  expect([](model::ModelConfig& c) { c.final_norm = false; }, "head without a final norm");
  expect([](model::ModelConfig& c) { c.embedding_size = 12; }, "projection from an embedding");
  expect([](model::ModelConfig& c) { c.position_beta = 0.1; },
         "scaling by position of channels that do not rotate");
  expect([](model::ModelConfig& c) { c.residual_factor = -1; }, "residual addition with the factor -1");
  expect([](model::ModelConfig& c) { c.attention_scale = -0.5F; }, "attention with the scale -0.5");
}

}  // namespace
}  // namespace qeval::quant
