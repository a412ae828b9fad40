// GGUF files of each family: what their metadata come to. Every rule was checked by the logits of llama.cpp
// on files that its own converter wrote; here each has a case that fails where it is broken.

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/gguf_builder.h"

namespace qeval::model {
namespace {

using fixtures::GgufArchitectures;
using testing::ElementsAre;
using testing::HasSubstr;
using File = fixtures::GgufBuilder;
using fixtures::kDim, fixtures::kHeads, fixtures::kKvHeads;

std::vector<int64_t> windows(const ModelConfig& config) {
  std::vector<int64_t> result;
  for (int64_t i = 0; i < config.num_layers; ++i) result.push_back(config.layer(i).window);
  return result;
}

struct Family {
  const char* gguf;
  const char* model_type;
  BlockForm form;
  NormKind norm;
  Activation activation;
  bool gated;
  QkNorm qk_norm;
};

TEST_F(GgufArchitectures, ExpertsAreFoundByTheirTensors) {
  const auto file = [](const char* architecture) {
    File made(architecture);
    made.u32("expert_count", 4).u32("expert_used_count", 2);
    made.tensor("blk.1.ffn_up_exps.weight", {4, 12, fixtures::kHidden});
    made.tensor("blk.1.ffn_gate_inp.weight", {4, fixtures::kHidden});
    return made;
  };
  const ModelConfig qwen = config(file("qwen3moe"));
  EXPECT_EQ(qwen.architecture, "qwen3_moe");
  EXPECT_EQ(qwen.experts->inner, 12);
  EXPECT_TRUE(qwen.experts->route.normalize);  // in llama.cpp, whatever config.json said
  EXPECT_FALSE(qwen.layer(0).sparse);
  EXPECT_TRUE(qwen.layer(1).sparse);
  EXPECT_EQ(again(qwen).experts->inner, 12);
  EXPECT_FALSE(config(file("olmoe")).experts->route.normalize);
  EXPECT_EQ(config(file("llama")).architecture, "mixtral");
  const ModelConfig phi = config(file("phimoe"));
  EXPECT_EQ(phi.experts->route.scores, RouteOp::Scores::softmax);
  EXPECT_EQ(again(phi).experts->route.scores, RouteOp::Scores::softmax);
  const ModelConfig ernie =
      config(file("ernie4_5-moe").u32("leading_dense_block_count", 1).u32("interleave_moe_layer_step", 1));
  EXPECT_FALSE(ernie.layer(0).sparse);
  EXPECT_TRUE(ernie.layer(1).sparse);
  EXPECT_THAT(refusal(File("qwen3moe").u32("expert_count", 4).u32("expert_used_count", 2)),
              HasSubstr("blk.0.ffn_up_exps.weight is missing"));
  EXPECT_THAT(refusal(file("qwen3moe").f32("expert_weights_scale", 2.5F)),
              HasSubstr("expert_weights_scale is 2.5; accepted: 1"));
}

TEST_F(GgufArchitectures, Glm45SaysHowItWeighsExperts) {
  File file("glm4moe");
  file.u32("expert_count", 6).u32("expert_used_count", 2).u32("expert_feed_forward_length", 12);
  file.u32("expert_shared_count", 2).u32("leading_dense_block_count", 1).u32("rope.dimension_count", 4);
  file.f32("expert_weights_scale", 1.5F).flag("expert_weights_norm", true);
  const ModelConfig glm = config(file);
  EXPECT_EQ(glm.architecture, "glm4_moe");
  EXPECT_EQ(glm.experts->route.factor, 1.5F);
  EXPECT_TRUE(glm.experts->route.normalize);
  EXPECT_EQ(glm.experts->shared_inner, 24);
  EXPECT_EQ(glm.qk_norm, QkNorm::none);
  EXPECT_TRUE(glm.layer(1).sparse && !glm.layer(0).sparse);
  EXPECT_EQ(again(glm).experts->route.factor, 1.5F);
  EXPECT_THAT(refusal(File(file).u32("expert_gating_func", 1)), HasSubstr("accepted: 2 (sigmoid)"));
}

TEST_F(GgufArchitectures, RecurrentLayersAreFoundByTheirTensors) {
  File file("qwen35");
  file.u32("ssm.conv_kernel", 4).u32("ssm.state_size", 6).u32("ssm.group_count", 2);
  file.u32("ssm.time_step_rank", 4).u32("ssm.inner_size", 20);
  file.u32("attention.key_length", kDim).u32("rope.dimension_count", 4);
  file.tensor("blk.0.ssm_conv1d.weight", {44, 4});
  const ModelConfig qwen = config(file);
  EXPECT_EQ(qwen.layer(0).mixer, LayerSettings::Mixer::recurrent);
  EXPECT_EQ(qwen.layer(1).mixer, LayerSettings::Mixer::attention);
  EXPECT_EQ(qwen.recurrence->value_dim, 5);
  EXPECT_TRUE(qwen.recurrence->tiled_heads);  // as the converter puts them
  EXPECT_EQ(qwen.graph.block(0).find<DeltaRuleOp>()->key_head(2), 0);
  EXPECT_EQ(qwen.graph.block(0).find<DeltaRuleOp>()->key_head(3), 1);
  EXPECT_TRUE(again(qwen).recurrence->tiled_heads);
  EXPECT_FALSE(qwen.norm_weight_plus_one);
}

TEST_F(GgufArchitectures, EachIsItsFamily) {
  constexpr auto rms = NormKind::rms, layer = NormKind::layer;
  constexpr auto silu = Activation::silu, gelu = Activation::gelu_tanh;
  constexpr auto none = QkNorm::none, head = QkNorm::head;
  const Family families[] = {
      {"llama", "llama", BlockForm::pre, rms, silu, true, none},
      {"mistral3", "ministral3", BlockForm::pre, rms, silu, true, none},
      {"qwen2", "qwen2", BlockForm::pre, rms, silu, true, none},
      {"qwen3", "qwen3", BlockForm::pre, rms, silu, true, head},
      {"gemma", "gemma", BlockForm::pre, rms, gelu, true, none},
      {"gemma2", "gemma2", BlockForm::sandwich, rms, gelu, true, none},
      {"gemma3", "gemma3_text", BlockForm::sandwich, rms, gelu, true, head},
      {"phi2", "phi", BlockForm::parallel, layer, gelu, false, none},
      {"phi3", "phi3", BlockForm::pre, rms, silu, true, none},
      {"smollm3", "smollm3", BlockForm::pre, rms, silu, true, none},
      {"olmo2", "olmo2", BlockForm::update_norms, rms, silu, true, QkNorm::full_width},
      {"exaone4", "exaone4", BlockForm::update_norms, rms, silu, true, head},
      {"chatglm", "glm", BlockForm::pre, rms, silu, true, none},
      {"glm4", "glm4", BlockForm::glm_sandwich, rms, silu, true, none},
      {"command-r", "cohere", BlockForm::parallel, layer, silu, true, none},
      {"granite", "granite", BlockForm::pre, rms, silu, true, none},
      {"ernie4_5", "ernie4_5", BlockForm::pre, rms, silu, true, none},
      {"gptneox", "gpt_neox", BlockForm::parallel_two_norms, layer, gelu, false, none},
      {"gpt2", "gpt2", BlockForm::pre, layer, gelu, false, none},
      {"starcoder2", "starcoder2", BlockForm::pre, layer, gelu, false, none},
      {"nemotron", "nemotron", BlockForm::pre, layer, Activation::relu2, false, none},
      {"seed_oss", "seed_oss", BlockForm::pre, rms, silu, true, none},
      {"hunyuan-dense", "hunyuan_v1_dense", BlockForm::pre, rms, silu, true, head},
      {"apertus", "apertus", BlockForm::pre, rms, Activation::xielu, false, head},
      {"arcee", "arcee", BlockForm::pre, rms, Activation::relu2, false, none},
  };
  for (const Family& family : families) {
    SCOPED_TRACE(family.gguf);
    File file(family.gguf);
    if (std::string(family.gguf) == "granite") file.f32("logit_scale", 1);
    const ModelConfig read = config(file);
    EXPECT_EQ(read.architecture, family.model_type);
    EXPECT_EQ(read.form, family.form);
    EXPECT_EQ(read.norm, family.norm);
    EXPECT_EQ(read.norm_eps, family.norm == rms ? 0.25 : 0.125);
    EXPECT_EQ(read.activation, family.activation);
    EXPECT_EQ(read.gated_mlp, family.gated);
    EXPECT_EQ(read.qk_norm, family.qk_norm);
    EXPECT_EQ(read.head_dim, kDim);
    EXPECT_EQ(read.num_kv_heads, std::string(family.gguf) == "gpt2" ? kHeads : kKvHeads);
    EXPECT_TRUE(read.tie_word_embeddings);
    EXPECT_FALSE(read.norm_weight_plus_one);  // converters have added it
    EXPECT_EQ(windows(read), std::string(family.gguf) == "gemma2" ? std::vector<int64_t>({4096, 0})
                                                                  : std::vector<int64_t>({0, 0}));
    if (!read.layers.empty() && !read.layers[0].rotary) continue;
    EXPECT_EQ(read.rotary.dim, kDim);  // where the file does not say otherwise
    EXPECT_EQ(read.rotary.theta, 10000.0);
    EXPECT_EQ(read.rotary.scaling.kind, RopeScaling::Kind::none);
    if (read.source.empty()) continue;
    const ModelConfig back = again(read);
    EXPECT_EQ(back.rotary, read.rotary);
    EXPECT_EQ(back.local_rotary, read.local_rotary);
    EXPECT_EQ(back.norm_eps, read.norm_eps);
    EXPECT_EQ(back.architecture, read.architecture);
  }
}

TEST_F(GgufArchitectures, Windows) {
  EXPECT_THAT(windows(config(File("gemma2", 4).u32("attention.sliding_window", 9))), ElementsAre(9, 0, 9, 0));
  const ModelConfig gemma = config(File("gemma3", 7)
                                       .u32("attention.sliding_window", 9)
                                       .f32("rope.freq_base", 500)
                                       .text("rope.scaling.type", "linear")
                                       .f32("rope.scaling.factor", 8)
                                       .f32("rope.freq_base_swa", 70));
  EXPECT_THAT(windows(gemma), ElementsAre(9, 9, 9, 9, 9, 0, 9));
  EXPECT_TRUE(gemma.layer(4).local_rotary && !gemma.layer(5).local_rotary);
  EXPECT_EQ(gemma.rotary.theta, 500);
  EXPECT_EQ(gemma.rotary.scaling.factor, 8);
  EXPECT_EQ(gemma.local_rotary->theta, 70);
  EXPECT_EQ(gemma.local_rotary->scaling.kind, RopeScaling::Kind::none);
  EXPECT_EQ(again(gemma).local_rotary, gemma.local_rotary);
  EXPECT_EQ(windows(again(gemma)), windows(gemma));

  const ModelConfig olmo = config(File("olmo2", 3)
                                      .u32("attention.sliding_window", 9)
                                      .flags("attention.sliding_window_pattern", {0, 1, 1})
                                      .f32("rope.freq_base", 500)
                                      .f32("rope.scaling.factor", 4));
  EXPECT_EQ(olmo.architecture, "olmo3");
  EXPECT_THAT(windows(olmo), ElementsAre(0, 9, 9));
  EXPECT_EQ(olmo.rotary.scaling.factor, 4);
  EXPECT_EQ(olmo.local_rotary->theta, 500);  // and unscaled
  EXPECT_EQ(olmo.local_rotary->scaling.kind, RopeScaling::Kind::none);

  const ModelConfig cohere =
      config(File("cohere2", 4).u32("attention.sliding_window", 9).f32("logit_scale", 0.5F));
  EXPECT_THAT(windows(cohere), ElementsAre(9, 9, 9, 0));
  EXPECT_TRUE(cohere.layer(0).rotary && !cohere.layer(3).rotary);
  EXPECT_THAT(
      windows(config(
          File("cohere2", 4).u32("attention.sliding_window", 9).u32("attention.sliding_window_pattern", 2))),
      ElementsAre(9, 0, 9, 0));

  // llama.cpp knows EXAONE 4's windows by the number of layers, and Phi-3 has none there.
  const ModelConfig large = config(File("exaone4", 64).u32("attention.sliding_window", 9));
  EXPECT_EQ(large.layer(2).window, 9);
  EXPECT_TRUE(large.layer(2).rotary && !large.layer(3).rotary);
  const ModelConfig small = config(File("exaone4", 4).u32("attention.sliding_window", 9));
  EXPECT_THAT(windows(small), ElementsAre(0, 0, 0, 0));
  EXPECT_TRUE(small.layer(3).rotary);
  EXPECT_THAT(windows(config(File("phi3").u32("attention.sliding_window", 9))), ElementsAre(0, 0));

  const ModelConfig smol = config(File("smollm3", 5));
  EXPECT_TRUE(smol.layer(2).rotary && !smol.layer(3).rotary && smol.layer(4).rotary);
}

TEST_F(GgufArchitectures, Factors) {
  const ModelConfig gemma =
      config(File("gemma2").f32("attn_logit_softcapping", 5).u32("attention.key_length", 16));
  EXPECT_EQ(gemma.score_softcap, 5);
  EXPECT_EQ(gemma.logit_softcap, 30);
  EXPECT_EQ(gemma.attention_scale, 0.25F);
  EXPECT_TRUE(gemma.scale_embedding);
  // The largest Gemma 2 and 3 are not scaled by their heads' size.
  EXPECT_FLOAT_EQ(config(File("gemma2", 46).u32("attention.key_length", 16)).attention_scale,
                  std::pow(8.0F, -0.5F));
  EXPECT_FLOAT_EQ(config(File("gemma3", 62).u32("attention.key_length", 16)).attention_scale,
                  std::pow(8.0F, -0.5F));
  EXPECT_EQ(config(File("gemma3")).logit_softcap, 0);
  // What llama.cpp takes where a file does not say: of Gemma 4, too.
  const File gemma4 = File("gemma4")
                          .u32("attention.sliding_window", 8)
                          .u32("attention.key_length", kDim)
                          .u32("attention.key_length_swa", kDim)
                          .flags("attention.sliding_window_pattern", {1, 0});
  EXPECT_EQ(config(gemma4).logit_softcap, 30);
  EXPECT_EQ(config(File(gemma4).f32("final_logit_softcapping", 5)).logit_softcap, 5);

  const ModelConfig granite = config(File("granite")
                                         .f32("logit_scale", 8)
                                         .f32("embedding_scale", 12)
                                         .f32("residual_scale", 0.5F)
                                         .f32("attention.scale", 0.75F));
  EXPECT_EQ(granite.logit_factor, 0.125F);
  EXPECT_EQ(granite.embedding_factor, 12);
  EXPECT_EQ(granite.residual_factor, 0.5F);
  EXPECT_EQ(granite.attention_scale, 0.75F);
  const ModelConfig plain = config(File("granite").f32("logit_scale", 1).f32("residual_scale", 0));
  EXPECT_EQ(plain.residual_factor, 1);
  EXPECT_FLOAT_EQ(plain.attention_scale, 1 / std::sqrt(8.0F));
  EXPECT_THAT(refusal(File("granite").f32("logit_scale", 1).flag("rope.scaling.finetuned", false)),
              HasSubstr("finetuned is false"));
  EXPECT_THAT(refusal(File("granite")), HasSubstr("granite.logit_scale (a float) is missing"));

  EXPECT_EQ(config(File("command-r")).logit_factor, 1);
  EXPECT_EQ(config(File("command-r").f32("logit_scale", 0.5F)).logit_factor, 0.5F);

  const File latent = File("minicpm3")
                          .u32("attention.key_length", 10)
                          .u32("rope.dimension_count", 4)
                          .u32("attention.q_lora_rank", 6)
                          .u32("attention.kv_lora_rank", 7);
  const ModelConfig minicpm = config(latent);
  EXPECT_EQ(minicpm.latent->nope, 6);
  EXPECT_EQ(minicpm.latent->rope, 4);
  EXPECT_EQ(minicpm.latent->value_dim, 8);  // a head's share of the embedding
  EXPECT_EQ(minicpm.latent->eps, 0.25);     // as all norms in llama.cpp
  EXPECT_EQ(minicpm.embedding_factor, 12);
  EXPECT_FLOAT_EQ(minicpm.residual_factor, 1.4F / std::sqrt(2.0F));
  EXPECT_EQ(minicpm.logit_factor, 8);
  EXPECT_EQ(again(minicpm).latent->eps, 0.25);

  const ModelConfig hunyuan = config(File("hunyuan-dense").f32("rope.scaling.alpha", 50));
  EXPECT_NEAR(hunyuan.rotary.theta, 10000 * std::pow(50, 8.0 / 6), 1e-6);
  EXPECT_TRUE(hunyuan.qk_norm_after_rotary);
}

TEST_F(GgufArchitectures, RopeScaling) {
  // YaRN's own settings count in Ministral only; attn_factor everywhere.
  const auto yarn = [&](const char* name) {
    return config(File(name)
                      .text("rope.scaling.type", "yarn")
                      .f32("rope.scaling.factor", 4)
                      .u32("rope.scaling.original_context_length", 32)
                      .f32("rope.scaling.attn_factor", 2)
                      .f32("rope.scaling.yarn_beta_fast", 16)
                      .f32("rope.scaling.yarn_log_multiplier", 1)
                      .f32("attention.temperature_scale", 0.25F));
  };
  const ModelConfig qwen = yarn("qwen3"), mistral = yarn("mistral3");
  const double grown = 0.1 * std::log(4) + 1;
  EXPECT_EQ(qwen.rotary.scaling.kind, RopeScaling::Kind::yarn);
  EXPECT_EQ(qwen.rotary.scaling.factor, 4);
  EXPECT_EQ(qwen.rotary.scaling.original_max_position_embeddings, 32);
  EXPECT_EQ(qwen.rotary.scaling.beta_fast, 32);
  EXPECT_NEAR(qwen.rotary.scaling.attention_factor, 2 * grown, 1e-12);
  EXPECT_EQ(mistral.rotary.scaling.beta_fast, 16);
  EXPECT_NEAR(mistral.rotary.scaling.attention_factor, 2, 1e-12);
  EXPECT_EQ(mistral.position_beta, 0.25);
  EXPECT_EQ(mistral.position_original, 32);
  EXPECT_EQ(again(mistral).rotary, mistral.rotary);

  // Factors by length, whatever the type says, and factors for all lengths.
  const ModelConfig phi = config(File("phi3")
                                     .u32("rope.scaling.original_context_length", 64)
                                     .f32("rope.scaling.attn_factor", 1.5F)
                                     .tensor("rope_factors_long.weight", {4}, {2, 3, 4, 5})
                                     .tensor("rope_factors_short.weight", {4}, {1, 1, 1, 2}));
  EXPECT_EQ(phi.rotary.scaling.kind, RopeScaling::Kind::longrope);
  EXPECT_THAT(phi.rotary.scaling.long_factors, ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(phi.rotary.scaling.short_factors, ElementsAre(1, 1, 1, 2));
  EXPECT_EQ(phi.rotary.scaling.attention_factor, 1.5);
  EXPECT_EQ(phi.length_class(64), 0);
  EXPECT_EQ(phi.length_class(65), 1);
  const ModelConfig llama = config(File("llama").tensor("rope_freqs.weight", {4}, {1, 1, 2, 3}));
  EXPECT_THAT(llama.rotary.scaling.long_factors, ElementsAre(1, 1, 2, 3));
  EXPECT_EQ(llama.rotary.scaling.short_factors, llama.rotary.scaling.long_factors);
  EXPECT_FALSE(llama.depends_on_length());
  EXPECT_EQ(again(llama).rotary, llama.rotary);
  EXPECT_EQ(config(File("llama").tensor("rope_freqs.weight", {4}, {1, 1, 1, 1})).rotary.scaling.kind,
            RopeScaling::Kind::none);
  EXPECT_THAT(
      refusal(File("phi3").tensor("rope_factors_long.weight", {3}).tensor("rope_factors_short.weight", {4})),
      HasSubstr("rope_factors_long.weight: F32 [3]; accepted: F32 [4]"));
  EXPECT_THAT(refusal(File("qwen3").text("rope.scaling.type", "ntk")),
              HasSubstr("rope.scaling.type is ntk; accepted: none, linear, yarn, longrope"));
  EXPECT_THAT(
      refusal(File("llama").f32("rope.scaling.factor", 2).tensor("rope_freqs.weight", {4}, {1, 1, 2, 3})),
      HasSubstr("beside linear rope scaling"));

  // 98 · (2 / 98) is less than 2 in floating point.
  for (const int64_t rotating : {2, 6, 96}) {
    EXPECT_EQ(config(File("phi2")
                         .u32("attention.key_length", 98)
                         .u32("attention.value_length", 98)
                         .u32("rope.dimension_count", rotating))
                  .rotary.dim,
              rotating);
  }
}

TEST_F(GgufArchitectures, Refusals) {
  EXPECT_THAT(refusal(File("bloom")), HasSubstr("general.architecture is bloom; accepted: apertus, "));
  EXPECT_THAT(refusal(File("qwen2").u32("expert_count", 8)), HasSubstr("qwen2.expert_count is 8"));
  EXPECT_THAT(refusal(File("qwen2").u32("attention.sliding_window", 8)), HasSubstr("sliding_window is 8"));
  EXPECT_THAT(refusal(File("qwen3").flag("attention.causal", false)), HasSubstr("attention.causal is false"));
  EXPECT_THAT(refusal(File("glm4").u32("nextn_predict_layers", 1)), HasSubstr("nextn_predict_layers is 1"));
  EXPECT_THAT(refusal(File("qwen3").u32("rope.dimension_count", 4)), HasSubstr("the head size, 8"));
  EXPECT_THAT(refusal(File("phi2").u32("rope.dimension_count", 10)), HasSubstr("2 to the head size, 8"));
  // Nothing is sized by what a file claims, or by nothing.
  EXPECT_THAT(
      refusal(File("phi3").u32("attention.key_length", 0x7FFFFFFF).f32("rope.scaling.attn_factor", 2)),
      HasSubstr("key_length is 2147483647; accepted: 2 to 8192"));
  EXPECT_THAT(refusal(File("phi3").u32("rope.dimension_count", 0).tensor("rope_freqs.weight", {1}, {1})),
              HasSubstr("dimension_count is 0"));
  EXPECT_THAT(refusal(File("gemma3").u32("attention.value_length", 4)), HasSubstr("attention.key_length, 8"));
  EXPECT_THAT(refusal(File("gemma2").f32("rope.freq_base_swa", 5)), HasSubstr("rope.freq_base_swa is 5"));
  EXPECT_THAT(refusal(File("cohere2")),
              HasSubstr("cohere2.attention.sliding_window (an integer) is missing"));
  for (const char* whole : {"arcee", "command-r", "hunyuan-dense", "seed_oss", "starcoder2"}) {
    EXPECT_THAT(refusal(File(whole).u32("rope.dimension_count", 4)), HasSubstr("the head size, 8")) << whole;
  }
  EXPECT_THAT(refusal(File("gemma2").flags("attention.sliding_window_pattern", {1})),
              HasSubstr("sliding_window_pattern is a list of 1; accepted: one per layer, 2"));
}

}  // namespace
}  // namespace qeval::model
