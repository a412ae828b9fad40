// config.json of mixtures of experts, of hybrids and of Gemma 3n and 4: where experts, recurrent mixers and
// shared keys stand, and which settings are refused.

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/config_builder.h"

namespace qeval::model {
namespace {

using fixtures::llama, fixtures::with, fixtures::without;
using fixtures::parse, fixtures::refusal;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Mixer = LayerSettings::Mixer;

/// A value of every layer.
template <typename Value>
std::vector<Value> each(const ModelConfig& config, Value LayerSettings::*member) {
  std::vector<Value> values;
  for (int64_t i = 0; i < config.num_layers; ++i) values.push_back(config.layer(i).*member);
  return values;
}

json moe(const char* type) {
  return with(llama(), fmt::format(R"({{"model_type": "{}", "num_experts": 8, "num_experts_per_tok": 2,
      "moe_intermediate_size": 24}})",
                                   type));
}

TEST(ExpertArchitectures, QwenIsSparseWhereItSays) {
  const ModelConfig config = parse(moe("qwen3_moe"));
  EXPECT_THAT(each(config, &LayerSettings::sparse), ElementsAre(true, true, true));
  EXPECT_EQ(config.experts->route.experts, 8);
  EXPECT_EQ(config.experts->route.used, 2);
  EXPECT_EQ(config.experts->inner, 24);
  EXPECT_FALSE(config.experts->route.normalize);
  EXPECT_TRUE(parse(with(moe("qwen3_moe"), R"({"norm_topk_prob": true})")).experts->route.normalize);
  EXPECT_THAT(each(parse(with(moe("qwen3_moe"), R"({"decoder_sparse_step": 2})")), &LayerSettings::sparse),
              ElementsAre(false, true, false));
  EXPECT_THAT(each(parse(with(moe("qwen3_moe"), R"({"mlp_only_layers": [0, 2]})")), &LayerSettings::sparse),
              ElementsAre(false, true, false));
  EXPECT_EQ(parse(with(without(moe("qwen3_moe"), "num_experts"), R"({"num_local_experts": 5})"))
                .experts->route.experts,
            5);  // the older name
  EXPECT_THAT(refusal(with(moe("qwen3_moe"), R"({"decoder_sparse_step": 0})")),
              HasSubstr("decoder_sparse_step is 0; accepted: 1 or more"));
  EXPECT_THAT(refusal(with(moe("qwen3_moe"), R"({"num_experts_per_tok": 9})")),
              HasSubstr("experts per token is 9; accepted: 1 to 8"));
  EXPECT_THAT(refusal(with(moe("qwen3"), R"({"head_dim": 16})")), HasSubstr("mixture of experts"));
}

TEST(ExpertArchitectures, Qwen2HasASharedExpertAndWindowsOnEveryOtherLayer) {
  const ModelConfig config = parse(with(moe("qwen2_moe"), R"({"shared_expert_intermediate_size": 40,
      "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 2, "num_hidden_layers": 4})"));
  EXPECT_EQ(config.experts->shared_inner, 40);
  EXPECT_TRUE(config.experts->shared_gate);
  EXPECT_THAT(each(config, &LayerSettings::window), ElementsAre(7, 0, 0, 0));
  EXPECT_TRUE(config.qkv_bias);
  // Written by transformers where windows are not used.
  EXPECT_THAT(each(parse(with(moe("qwen2_moe"), R"({"sliding_window": 0, "use_sliding_window": false})")),
                   &LayerSettings::window),
              ElementsAre(0, 0, 0));
}

TEST(ExpertArchitectures, ErnieIsSparseBetweenTwoLayersAtAnInterval) {
  const json ernie = with(llama(), R"({"model_type": "ernie4_5_moe", "moe_num_experts": 6, "moe_k": 2,
      "moe_intermediate_size": 12, "num_hidden_layers": 6, "moe_num_shared_experts": 3})");
  const ModelConfig config = parse(ernie);
  EXPECT_THAT(each(config, &LayerSettings::sparse), ElementsAre(false, true, true, true, true, true));
  EXPECT_EQ(config.experts->shared_inner, 36);
  EXPECT_FALSE(config.experts->shared_gate);
  EXPECT_TRUE(config.experts->route.correction && config.experts->route.normalize);
  EXPECT_THAT(each(parse(with(ernie, R"({"moe_layer_start_index": 0, "moe_layer_end_index": 4,
                                         "moe_layer_interval": 2})")),
                   &LayerSettings::sparse),
              ElementsAre(false, true, false, true, false, false));
}

TEST(ExpertArchitectures, HostileSizesAreRefusedBeforeTheyAreMultiplied) {
  const std::string huge = "4611686018427387904";
  EXPECT_THAT(refusal(with(moe("qwen3_moe"), R"({"moe_intermediate_size": )" + huge + "}")),
              HasSubstr("moe_intermediate_size is 4611686018427387904; accepted: 1 to 1048576"));
  EXPECT_THAT(
      refusal(with(llama(), R"({"model_type": "ernie4_5_moe", "moe_num_shared_experts": )" + huge + "}")),
      HasSubstr("moe_num_shared_experts"));
  EXPECT_THAT(refusal(with(llama(), R"({"model_type": "granitemoehybrid", "mamba_expand": )" + huge + "}")),
              HasSubstr("mamba_expand"));
  EXPECT_THAT(refusal(with(llama(), R"({"model_type": "lfm2", "block_ffn_dim_multiplier": 1e300})")),
              HasSubstr("block_ffn_dim_multiplier"));
}

TEST(ExpertArchitectures, GptOssHasYarnWindowsAndSinksByDefault) {
  const ModelConfig config =
      parse(with(llama(), R"({"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2})"));
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.rotary.theta, 150000);
  EXPECT_EQ(config.rotary.scaling.kind, RopeScaling::Kind::yarn);
  EXPECT_EQ(config.rotary.scaling.factor, 32);
  EXPECT_FALSE(config.rotary.scaling.truncate);
  EXPECT_THAT(each(config, &LayerSettings::window), ElementsAre(128, 0, 128));
  EXPECT_TRUE(config.attention_sinks && config.qkv_bias && config.o_bias);
  EXPECT_EQ(config.experts->limit, 7);
  EXPECT_EQ(config.experts->inner, 160);
}

TEST(ExpertArchitectures, PhiTurnsByShortFactorsWithTwoScales) {
  const json phi = with(llama(), R"({"model_type": "phimoe", "num_local_experts": 4, "num_experts_per_tok": 2,
      "head_dim": 4, "rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [3, 4],
      "short_mscale": 1.25, "long_mscale": 1.5, "original_max_position_embeddings": 64}})");
  const RopeScaling scaling = parse(phi).rotary.scaling;
  EXPECT_EQ(scaling.long_factors, scaling.short_factors);
  EXPECT_EQ(scaling.attention_factor, 1.25);
  EXPECT_EQ(scaling.long_attention_factor, 1.5);
  EXPECT_EQ(parse(phi).length_class(65), 1);
  EXPECT_EQ(parse(phi).length_class(64), 0);
  EXPECT_THAT(refusal(with(phi, R"({"num_experts_per_tok": 3})")), HasSubstr("num_experts_per_tok is 3"));
}

TEST(HybridArchitectures, Lfm2) {
  const json lfm2 = with(without(llama(), "rms_norm_eps"), R"({"model_type": "lfm2", "block_ff_dim": 100,
      "block_multiple_of": 16, "norm_eps": 0.25, "conv_L_cache": 4})");
  const ModelConfig config = parse(with(lfm2, R"({"full_attn_idxs": [1]})"));
  EXPECT_THAT(each(config, &LayerSettings::mixer),
              ElementsAre(Mixer::recurrent, Mixer::attention, Mixer::recurrent));
  EXPECT_EQ(config.intermediate_size, 80);  // two thirds, rounded up
  EXPECT_EQ(config.norm_eps, 0.25);
  EXPECT_EQ(config.recurrence->taps, 4);
  EXPECT_EQ(config.graph.block(0).state_size, 3 * 64);
  EXPECT_EQ(config.graph.block(1).state_size, 0);
  EXPECT_EQ(parse(with(lfm2, R"({"block_auto_adjust_ff_dim": false})")).intermediate_size, 100);
  EXPECT_THAT(refusal(with(lfm2, R"({"layer_types": ["conv", "mamba", "conv"]})")),
              HasSubstr("accepted: full_attention, conv"));
}

TEST(HybridArchitectures, QwenTurnsAQuarterAndGatesItsAttention) {
  const json qwen =
      with(llama(), R"({"model_type": "qwen3_5_text", "num_hidden_layers": 4, "head_dim": 32})");
  const ModelConfig config = parse(qwen);
  EXPECT_THAT(each(config, &LayerSettings::mixer),
              ElementsAre(Mixer::recurrent, Mixer::recurrent, Mixer::recurrent, Mixer::attention));
  EXPECT_EQ(config.rotary.dim, 8);
  EXPECT_TRUE(config.attention_gate && config.norm_weight_plus_one);
  EXPECT_THAT(each(parse(with(qwen, R"({"full_attention_interval": 2})")), &LayerSettings::mixer),
              ElementsAre(Mixer::recurrent, Mixer::attention, Mixer::recurrent, Mixer::attention));
  EXPECT_THAT(refusal(with(qwen, R"({"linear_num_key_heads": 3})")),
              HasSubstr("32 value heads; accepted: a multiple of the 3 key heads"));
}

TEST(HybridArchitectures, MambaSizesAndStepLimits) {
  const json falcon = with(llama(), R"({"model_type": "falcon_h1", "mamba_d_ssm": 48, "mamba_n_heads": 4,
      "mamba_d_head": 12, "mamba_d_state": 8})");
  const ModelConfig config = parse(falcon);
  EXPECT_EQ(config.recurrence->value_dim, 12);
  EXPECT_EQ(config.recurrence->least_step, 0);
  EXPECT_TRUE(std::isinf(config.recurrence->most_step));
  EXPECT_THAT(each(config, &LayerSettings::mixer), ElementsAre(Mixer::both, Mixer::both, Mixer::both));
  const ModelConfig limited = parse(with(falcon, R"({"time_step_limit": [0.5, 2]})"));
  EXPECT_EQ(limited.recurrence->least_step, 0.5);
  EXPECT_EQ(limited.recurrence->most_step, 2);
  EXPECT_TRUE(std::isinf(
      parse(with(falcon, R"({"time_step_limit": [0, {"__float__": "Infinity"}]})")).recurrence->most_step));
  EXPECT_THAT(refusal(with(falcon, R"({"time_step_limit": [2, 1]})")), HasSubstr("ascending"));
  EXPECT_THAT(refusal(with(falcon, R"({"mamba_d_head": 13})")), HasSubstr("mamba_d_head is 13"));
  EXPECT_THAT(refusal(with(falcon, R"({"mamba_n_heads": 5})")), HasSubstr("a divisor of the mixer's 48"));
  EXPECT_THAT(refusal(with(falcon, R"({"mamba_n_groups": 0, "mamba_rms_norm": true})")),
              HasSubstr("key heads or groups is 0"));
  EXPECT_THAT(refusal(with(falcon, R"({"ssm_multipliers": [1, 2]})")), HasSubstr("a list of 5 numbers"));
}

TEST(HybridArchitectures, GraniteWithoutExpertsHasTheSharedOneAlone) {
  const json granite = with(llama(), R"({"model_type": "granitemoehybrid", "mamba_n_heads": 4,
      "shared_intermediate_size": 40, "layer_types": ["mamba", "attention", "linear_attention"]})");
  const ModelConfig config = parse(with(granite, R"({"num_local_experts": 0})"));
  EXPECT_FALSE(config.experts);
  EXPECT_EQ(config.intermediate_size, 40);
  EXPECT_THAT(each(config, &LayerSettings::mixer),
              ElementsAre(Mixer::recurrent, Mixer::attention, Mixer::recurrent));
  EXPECT_THAT(each(config, &LayerSettings::rotary), ElementsAre(false, false, false));
  EXPECT_EQ(parse(granite).experts->shared_inner, 40);
  EXPECT_THAT(each(parse(with(granite, R"({"position_embedding_type": "rope"})")), &LayerSettings::rotary),
              ElementsAre(true, true, true));
}

TEST(ExpertArchitectures, Glm45ChoosesInGroupsByCorrectedSigmoids) {
  const json glm =
      with(llama(), R"({"model_type": "glm4_moe", "n_routed_experts": 12, "num_experts_per_tok": 3,
      "moe_intermediate_size": 20, "n_shared_experts": 2, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5,
      "use_qk_norm": true})");
  const ModelConfig config = parse(glm);
  const RouteOp& route = config.experts->route;
  EXPECT_EQ(route.scores, RouteOp::Scores::sigmoid);
  EXPECT_TRUE(route.correction && route.normalize);
  EXPECT_EQ(route.groups, 4);
  EXPECT_EQ(route.used_groups, 2);
  EXPECT_EQ(route.factor, 2.5F);
  EXPECT_EQ(config.experts->shared_inner, 40);
  EXPECT_FALSE(config.layer(0).sparse);  // the first is dense
  EXPECT_TRUE(config.layer(1).sparse);
  EXPECT_EQ(config.qk_norm, QkNorm::head);
  EXPECT_EQ(config.rotary.dim, config.head_dim / 2);
  EXPECT_FALSE(parse(with(glm, R"({"norm_topk_prob": false})")).experts->route.normalize);
  EXPECT_THAT(refusal(with(glm, R"({"n_group": 5})")), HasSubstr("5 groups of experts"));
  EXPECT_THAT(refusal(with(glm, R"({"n_shared_experts": 0})")), HasSubstr("n_shared_experts"));
}

json gemma4() {
  return with(llama(), R"({"model_type": "gemma4_text", "num_hidden_layers": 4, "head_dim": 8,
      "global_head_dim": 16, "hidden_size_per_layer_input": 0,
      "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]})");
}

TEST(MobileArchitectures, Gemma4sLastLayerIsFullAndFullLayersHaveHeadsOfTheirOwn) {
  const ModelConfig config = parse(gemma4());
  EXPECT_THAT(each(config, &LayerSettings::window), ElementsAre(512, 0, 512, 0));
  EXPECT_THAT(each(config, &LayerSettings::head_dim), ElementsAre(0, 16, 0, 16));
  EXPECT_EQ(config.rotary.dim, 16);
  EXPECT_EQ(config.rotary.turning_pairs, 2);  // a quarter by default
  EXPECT_EQ(config.local_rotary->dim, 8);
  EXPECT_EQ(config.attention_scale, 1);
  EXPECT_TRUE(config.v_norm && config.layer_scalar && config.scale_embedding);
  EXPECT_FALSE(config.norm_weight_plus_one || config.layer_inputs || config.experts);
  const ModelConfig valueless =
      parse(with(gemma4(), R"({"attention_k_eq_v": true, "num_global_key_value_heads": 1})"));
  EXPECT_THAT(each(valueless, &LayerSettings::keys_as_values), ElementsAre(false, true, false, true));
  EXPECT_THAT(each(valueless, &LayerSettings::num_kv_heads), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(
      each(parse(with(gemma4(), R"({"per_layer_config": {"1": {"head_dim": 24}, "3": {"head_dim": 24}}})")),
           &LayerSettings::head_dim),
      ElementsAre(0, 24, 0, 24));
}

TEST(MobileArchitectures, LastLayersReadTheKeysOfTheLastOfTheirType) {
  const ModelConfig config =
      parse(with(gemma4(), R"({"num_kv_shared_layers": 2, "use_double_wide_mlp": true})"));
  EXPECT_THAT(each(config, &LayerSettings::kv_from), ElementsAre(0, 0, 2, 2));
  EXPECT_THAT(each(config, &LayerSettings::kv_lent), ElementsAre(true, true, false, false));
  EXPECT_THAT(each(config, &LayerSettings::intermediate_size), ElementsAre(0, 0, 320, 320));
  EXPECT_EQ(config.graph.block(2).find<LinearOp>(Module::k), nullptr);
  EXPECT_THAT(refusal(with(gemma4(), R"({"num_kv_shared_layers": 3})")),
              HasSubstr("a layer with keys and values for every type"));
  EXPECT_THAT(refusal(with(gemma4(), R"({"num_kv_shared_layers": 4})")), HasSubstr("accepted: 0 to 3"));
}

TEST(MobileArchitectures, Gemma3nsSparsityIsAQuantile) {
  const json gemma = with(llama(), R"({"model_type": "gemma3n_text", "num_kv_shared_layers": 0,
      "hidden_size_per_layer_input": 4, "intermediate_size": [10, 11, 12], "activation_sparsity_pattern":
      [0.95, 0.5, 0.0], "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})");
  const ModelConfig config = parse(gemma);
  const auto sparsity = each(config, &LayerSettings::activation_sparsity);
  EXPECT_NEAR(sparsity[0], 1.6448536, 1e-6);
  EXPECT_NEAR(sparsity[1], 0, 1e-6);
  EXPECT_THAT(each(config, &LayerSettings::intermediate_size), ElementsAre(10, 11, 12));
  EXPECT_EQ(config.logit_softcap, 30);
  EXPECT_EQ(config.altup->streams, 4);
  EXPECT_THAT(refusal(with(gemma, R"({"altup_active_idx": 1})")), HasSubstr("altup_active_idx is 1"));
  EXPECT_THAT(refusal(with(gemma, R"({"activation_sparsity_pattern": [1.0, 0, 0]})")), HasSubstr("below 1"));
}

}  // namespace
}  // namespace qeval::model
