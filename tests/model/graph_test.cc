#include "model/graph.h"

#include <gmock/gmock.h>

#include "model/float_arithmetic.h"
#include "model/rotary.h"
#include "tests/tiny_model.h"

namespace qeval::model {
namespace {

using test::TinyModel;
using testing::ElementsAre;

/// Modules of a block's norms, linears and additions, in order.
std::vector<std::string> order(const BlockGraph& block) {
  std::vector<std::string> names;
  for (const Operation& operation : block.operations) {
    if (const auto* op = std::get_if<NormOp>(&operation)) names.emplace_back(module_name(op->module));
    if (const auto* op = std::get_if<LinearOp>(&operation)) names.emplace_back(module_name(op->module));
    if (std::holds_alternative<AddOp>(operation)) names.emplace_back("+");
  }
  return names;
}

TEST(Graph, NormsStandWhereTheFormSays) {
  TinyModel tiny;
  const auto of = [&](BlockForm form) {
    tiny.config.form = form;
    return order(make_graph(tiny.config).block(0));
  };
  const char *q = "self_attn.q_proj", *k = "self_attn.k_proj", *v = "self_attn.v_proj",
             *o = "self_attn.o_proj";
  const char *w1 = "mlp.w1", *w2 = "mlp.w2", *w3 = "mlp.w3";
  EXPECT_THAT(of(BlockForm::pre),
              ElementsAre("input_layernorm", q, k, v, o, "+", "post_attention_layernorm", w1, w3, w2, "+"));
  EXPECT_THAT(of(BlockForm::update_norms), ElementsAre(q, k, v, o, "post_attention_layernorm", "+", w1, w3,
                                                       w2, "post_feedforward_layernorm", "+"));
  EXPECT_THAT(of(BlockForm::sandwich),
              ElementsAre("input_layernorm", q, k, v, o, "post_attention_layernorm", "+",
                          "pre_feedforward_layernorm", w1, w3, w2, "post_feedforward_layernorm", "+"));
  EXPECT_THAT(of(BlockForm::parallel), ElementsAre("input_layernorm", q, k, v, o, w1, w3, w2, "+", "+"));
  EXPECT_THAT(of(BlockForm::after_add),
              ElementsAre(q, k, v, o, "+", "input_layernorm", w1, w3, w2, "+", "post_attention_layernorm"));
}

TEST(Graph, TheLastChangeOfAnOperandHandsItToTheAttention) {
  TinyModel tiny;
  tiny.config.qk_norm = QkNorm::head;
  const auto operands = [&] {
    std::vector<std::string_view> names;
    const Graph graph = make_graph(tiny.config);
    for (const Operation& operation : graph.block(0).operations) {
      const auto note = [&](Operand operand) {
        if (operand != Operand::none) names.push_back(operation_name(operation));
      };
      if (const auto* op = std::get_if<LinearOp>(&operation)) note(op->operand);
      if (const auto* op = std::get_if<NormOp>(&operation)) note(op->operand);
      if (const auto* op = std::get_if<RotateOp>(&operation)) note(op->operand);
    }
    return names;
  };
  EXPECT_THAT(operands(), ElementsAre("linear map", "rotary embedding", "rotary embedding"));
  tiny.config.qk_norm_after_rotary = true;
  EXPECT_THAT(operands(), ElementsAre("linear map", "norm", "norm"));
  tiny.config.qk_norm_after_rotary = false;
  tiny.config.layers.assign(2, {.rotary = false});
  EXPECT_THAT(operands(), ElementsAre("linear map", "norm", "norm"));
}

TEST(Graph, EdgesJoinWhatMayBeRescaled) {
  TinyModel tiny;
  const auto edges = [&] {
    std::vector<std::string> found;
    for (const ScaleEdge& edge : scale_edges(make_graph(tiny.config).block(0))) {
      std::string text(module_name(edge.producer));
      for (const Module module : edge.consumers) text += " " + std::string(module_name(module));
      found.push_back(text);
    }
    return found;
  };
  const std::string qkv = " self_attn.q_proj self_attn.k_proj self_attn.v_proj", gate_up = " mlp.w1 mlp.w3";
  const std::string product = "mlp.w3 mlp.w2";
  EXPECT_THAT(edges(), ElementsAre("input_layernorm" + qkv, "post_attention_layernorm" + gate_up, product));
  tiny.config.num_kv_heads = tiny.config.num_heads;
  tiny.config.form = BlockForm::parallel;
  EXPECT_THAT(edges(),
              ElementsAre("input_layernorm" + qkv + gate_up, "self_attn.v_proj self_attn.o_proj", product));
  tiny.config.form = BlockForm::update_norms;  // norms of updates feed no linear map
  tiny.config.gated_mlp = false;
  EXPECT_THAT(edges(), ElementsAre("self_attn.v_proj self_attn.o_proj"));
}

/// A norm in front of experts feeds their router, the shared expert and all of theirs; where anything but a
/// linear map reads it or stands behind the values, there is nothing to rescale.
TEST(Graph, EdgesReachExpertsAndEndAtWhatIsNotLinear) {
  TinyModel tiny;
  const auto edges = [&] {
    std::map<Module, std::vector<Module>> found;
    for (const ScaleEdge& edge : scale_edges(make_graph(tiny.config).block(0)))
      found[edge.producer] = edge.consumers;
    return found;
  };
  tiny.config.experts.emplace();
  tiny.config.experts->route = {.experts = 4, .used = 2};
  tiny.config.experts->inner = tiny.config.experts->shared_inner = 8;
  tiny.config.experts->shared_gate = true;
  tiny.config.layers.assign(2, {.sparse = true});
  EXPECT_THAT(edges().at(Module::post_attention_norm),
              ElementsAre(Module::router, Module::shared_expert_gate, Module::shared_gate, Module::shared_up,
                          Module::expert_gate, Module::expert_up));
  EXPECT_THAT(edges().at(Module::shared_up), ElementsAre(Module::shared_down));
  EXPECT_FALSE(edges().contains(Module::up));
  tiny.config.num_kv_heads = tiny.config.num_heads;
  EXPECT_TRUE(edges().contains(Module::v));
  tiny.config.v_norm = true;
  tiny.config.qk_norm = QkNorm::head;
  EXPECT_FALSE(edges().contains(Module::v));
  tiny.config.v_norm = false;
  tiny.config.qkv_clip = 1;
  EXPECT_FALSE(edges().contains(Module::v));
  EXPECT_TRUE(edges().contains(Module::input_norm));
  tiny.config.attention_in = 2;  // a factor reads the norm
  EXPECT_FALSE(edges().contains(Module::input_norm));
}

/// Against the formulas (transformers' modeling_rope_utils), in double.
TEST(RotaryScaling, StretchesFrequenciesByItsFormula) {
  Rotary rotary{.theta = 10000.0, .dim = 8, .scaling = {}};
  const std::vector<float> plain = rotary_frequencies(rotary);
  rotary.scaling.kind = RopeScaling::Kind::dynamic;
  rotary.scaling.factor = 2;
  rotary.scaling.original_max_position_embeddings = 48;
  EXPECT_EQ(rotary_frequencies(rotary, 48), plain);
  const double theta = 10000.0 * std::pow(2.0 * 129 / 48 - 1, 8.0 / 6.0);
  const std::vector<float> stretched = rotary_frequencies(rotary, 129);
  for (size_t i = 0; i < 4; ++i) {
    const double wanted = std::pow(theta, -2.0 * static_cast<double>(i) / 8);
    EXPECT_NEAR(static_cast<double>(stretched[i]), wanted, 1e-6 * wanted);
  }
  EXPECT_EQ(rotary.length_class(48), 0);
  EXPECT_EQ(rotary.length_class(129), 129);
  rotary.scaling.kind = RopeScaling::Kind::longrope;
  rotary.scaling.long_factors = {2, 4, 8, 16};
  rotary.scaling.short_factors = {1, 1, 2, 2};
  EXPECT_EQ(rotary.length_class(49), 1);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(rotary_frequencies(rotary, 48)[i] * static_cast<float>(rotary.scaling.short_factors[i]),
                    plain[i]);
    EXPECT_FLOAT_EQ(rotary_frequencies(rotary, 49)[i] * static_cast<float>(rotary.scaling.long_factors[i]),
                    plain[i]);
  }
  rotary.scaling.kind = RopeScaling::Kind::yarn;
  rotary.scaling.factor = 4;
  rotary.scaling.original_max_position_embeddings = 64;
  const std::vector<float> yarn = rotary_frequencies(rotary);
  EXPECT_FLOAT_EQ(yarn[0], plain[0]);         // short wavelengths stay
  EXPECT_FLOAT_EQ(yarn[3], plain[3] / 4.0F);  // long ones are interpolated
}

}  // namespace
}  // namespace qeval::model
