// config.json of each family: what its own settings come to, and which it refuses. What all of them share is
// in config_test.cc, GGUF files are in gguf_architectures_test.cc.

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

TEST(Architectures, Gemma) {
  json gemma = with(llama(), R"({"model_type": "gemma", "head_dim": 32, "hidden_act": "gelu_pytorch_tanh"})");
  const ModelConfig config = parse(gemma);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.activation, Activation::gelu_tanh);
  EXPECT_TRUE(config.norm_weight_plus_one && config.scale_embedding && config.tie_word_embeddings);
  EXPECT_EQ(parse(without(gemma, "head_dim")).head_dim, 256);
  EXPECT_EQ(parse(without(gemma, "hidden_act")).activation, Activation::gelu_tanh);
  gemma["hidden_act"] = "gelu";
  EXPECT_EQ(parse(gemma).activation, Activation::gelu_erf);
  gemma["hidden_activation"] = nullptr;
  EXPECT_EQ(parse(gemma).activation, Activation::gelu_erf);
  gemma["hidden_activation"] = "gelu_pytorch_tanh";
  EXPECT_EQ(parse(gemma).activation, Activation::gelu_tanh);
}

TEST(Architectures, StableLm) {
  const json stablelm =
      with(without(llama(), "rms_norm_eps"), R"({"model_type": "stablelm", "use_qkv_bias": true})");
  const ModelConfig config = parse(stablelm);
  EXPECT_EQ(config.norm, NormKind::layer);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias || config.mlp_bias);
  EXPECT_EQ(config.rotary.dim, 4);  // a quarter by default
  EXPECT_EQ(parse(with(stablelm, R"({"partial_rotary_factor": 0.5, "layer_norm_eps": 1e-6})")).rotary.dim, 8);
  EXPECT_EQ(parse(with(stablelm, R"({"rope_parameters": {"partial_rotary_factor": 0.5}})")).rotary.dim, 8);
  EXPECT_EQ(parse(with(stablelm, R"({"use_parallel_residual": true})")).form, BlockForm::parallel);
  EXPECT_EQ(parse(with(stablelm, R"({"qk_layernorm": true})")).qk_norm, QkNorm::head_own);
  EXPECT_THAT(refusal(with(stablelm, R"({"use_qk_norm": true})")),
              HasSubstr("use_qk_norm is true; accepted: false"));
  EXPECT_THAT(refusal(with(stablelm, R"({"partial_rotary_factor": 0.2})")), HasSubstr("an even number"));
  EXPECT_THAT(refusal(with(stablelm, R"({"partial_rotary_factor": 1.5})")), HasSubstr("at most 1"));
}

TEST(Architectures, Granite) {
  const json granite = with(llama(), R"({"model_type": "granite"})");
  const ModelConfig plain = parse(granite);
  EXPECT_EQ(plain.attention_scale, 1);  // not 1/√head_dim
  EXPECT_EQ(plain.embedding_factor * plain.residual_factor * plain.logit_factor, 1);
  const ModelConfig config = parse(with(granite, R"({"embedding_multiplier": 12, "attention_multiplier": 0.25,
      "residual_multiplier": 0.5, "logits_scaling": 8.0})"));
  EXPECT_EQ(config.embedding_factor, 12);
  EXPECT_EQ(config.attention_scale, 0.25F);
  EXPECT_EQ(config.residual_factor, 0.5F);
  EXPECT_EQ(config.logit_factor, 0.125F);
  for (const char* key :
       {"embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"}) {
    EXPECT_THAT(refusal(with(granite, fmt::format(R"({{"{}": 0}})", key))),
                HasSubstr(fmt::format("{} is 0; accepted: a number other than 0", key)));
  }
}

TEST(Architectures, Arcee) {
  const json arcee =
      with(without(without(llama(), "hidden_act"), "rms_norm_eps"), R"({"model_type": "arcee"})");
  const ModelConfig config = parse(without(arcee, "max_position_embeddings"));
  EXPECT_EQ(config.max_position_embeddings, 4096);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_EQ(config.activation, Activation::relu2);
  EXPECT_FALSE(config.gated_mlp || config.qkv_bias || config.o_bias || config.mlp_bias);
  const ModelConfig biased = parse(with(arcee, R"({"attention_bias": true, "mlp_bias": true})"));
  EXPECT_TRUE(biased.qkv_bias && biased.o_bias && biased.mlp_bias);
  for (const char* yarn : {R"({"rope_theta": 500, "rope_scaling": {"type": "yarn", "factor": 4}})",
                           R"({"rope_parameters": {"rope_theta": 500, "rope_type": "yarn", "factor": 4}})"}) {
    EXPECT_EQ(parse(with(arcee, yarn)).rotary.theta, 500);
    EXPECT_EQ(parse(with(arcee, yarn)).rotary.scaling.kind, RopeScaling::Kind::yarn);
  }
  EXPECT_THAT(refusal(with(arcee, R"({"sliding_window": 64})")),
              HasSubstr("sliding_window is 64; accepted: null"));
}

TEST(Architectures, Helium) {
  const json helium = with(without(llama(), "rms_norm_eps"), R"({"model_type": "helium", "head_dim": 16})");
  const ModelConfig config = parse(helium);
  EXPECT_EQ(config.norm_eps, 1e-8);
  EXPECT_EQ(config.rotary.theta, 100000);
  EXPECT_EQ(parse(with(helium, R"({"rope_theta": 500})")).rotary.theta, 500);
  EXPECT_EQ(
      parse(with(helium, R"({"rope_parameters": {"rope_type": "default", "rope_theta": 500}})")).rotary.theta,
      500);
  const ModelConfig biased = parse(with(helium, R"({"attention_bias": true, "mlp_bias": true})"));
  EXPECT_TRUE(biased.qkv_bias && biased.mlp_bias);
  EXPECT_FALSE(biased.o_bias);  // it never has one
  // o is square there, and head_dim 128 where it is not given.
  EXPECT_THAT(refusal(with(helium, R"({"head_dim": 32})")),
              HasSubstr("hidden_size is 64; accepted: num_attention_heads · head_dim, 128"));
  EXPECT_THAT(refusal(without(helium, "head_dim")), HasSubstr("num_attention_heads · head_dim, 512"));
}

TEST(Architectures, VaultGemma) {
  const json gemma = with(without(llama(), "hidden_act"), R"({"model_type": "vaultgemma", "head_dim": 32})");
  const auto windows = [](const ModelConfig& read) {
    return std::vector{read.layer(0).window, read.layer(1).window, read.layer(2).window};
  };
  const ModelConfig config = parse(gemma);
  EXPECT_EQ(config.form, BlockForm::pre);
  EXPECT_EQ(config.activation, Activation::gelu_tanh);
  EXPECT_TRUE(config.norm_weight_plus_one && config.scale_embedding && config.tie_word_embeddings);
  EXPECT_EQ(config.attention_scale, 0.0625F);
  EXPECT_EQ(config.score_softcap, 50);
  EXPECT_EQ(config.logit_softcap, 30);
  EXPECT_THAT(windows(config), ElementsAre(4096, 0, 4096));
  const ModelConfig other = parse(with(gemma, R"({"sliding_window": 9, "attn_logit_softcapping": null,
      "final_logit_softcapping": null, "query_pre_attn_scalar": 64, "attention_bias": true,
      "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]})"));
  EXPECT_EQ(other.attention_scale, 0.125F);
  EXPECT_EQ(other.score_softcap + other.logit_softcap, 0);
  EXPECT_TRUE(other.qkv_bias && other.o_bias);
  EXPECT_THAT(windows(other), ElementsAre(0, 9, 9));
  for (const char* theta : {R"({"rope_theta": 500})", R"({"rope_parameters": {"rope_theta": 500}})"}) {
    EXPECT_EQ(parse(with(gemma, theta)).rotary.theta, 500);
  }
  EXPECT_THAT(refusal(with(gemma, R"({"query_pre_attn_scalar": -1})")),
              HasSubstr("the attention's scale is"));
  EXPECT_THAT(refusal(with(gemma, R"({"use_bidirectional_attention": true})")),
              HasSubstr("use_bidirectional_attention is true; accepted: false"));
}

/// transformers fills in the type that is missing.
TEST(Architectures, RopeSettingsOfOneTypeOfLayer) {
  const auto read = [](const char* type, const char* settings) {
    return parse(
        with(with(llama(), fmt::format(R"({{"model_type": "{}", "head_dim": 16}})", type)), settings));
  };
  const char* full = R"({"rope_parameters": {"full_attention": {"rope_theta": 500, "rope_type": "linear",
                                                                 "factor": 2}}})";
  const char* sliding = R"({"rope_parameters": {"sliding_attention": {"rope_theta": 500}}})";
  for (const auto& [type, full_theta, local_theta] :
       {std::tuple{"gemma3_text", 1e6, 1e4}, std::tuple{"olmo3", 5e5, 5e5}}) {
    SCOPED_TRACE(type);
    EXPECT_EQ(read(type, full).rotary.theta, 500);
    EXPECT_EQ(read(type, full).rotary.scaling.factor, 2);
    EXPECT_EQ(read(type, full).local_rotary->theta, local_theta);
    EXPECT_EQ(read(type, full).local_rotary->scaling.kind, RopeScaling::Kind::none);
    EXPECT_EQ(read(type, sliding).rotary.theta, full_theta);
    EXPECT_EQ(read(type, sliding).local_rotary->theta, 500);
  }
  const char* bases =
      R"({"rope_theta": 70, "rope_local_base_freq": 80, "rope_parameters": {"full_attention": {},
                          "sliding_attention": {}}})";
  EXPECT_EQ(read("gemma3_text", bases).rotary.theta, 70);
  EXPECT_EQ(read("gemma3_text", bases).local_rotary->theta, 80);
}

/// What transformers' code of a family does not look at would be computed otherwise than it was meant.
TEST(Architectures, RopeSettingsThatAFamilyLacks) {
  for (const char* type :
       {"granite", "mistral", "qwen2", "qwen3", "gemma2", "smollm3", "starcoder2", "cohere2"}) {
    const json config = with(llama(), fmt::format(R"({{"model_type": "{}", "head_dim": 16}})", type));
    for (const char* partial :
         {R"({"partial_rotary_factor": 0.5})",
          R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})"}) {
      EXPECT_THAT(refusal(with(config, partial)),
                  HasSubstr("partial_rotary_factor is 0.5; accepted: 1 (the family rotates whole heads)"))
          << type;
    }
    EXPECT_EQ(parse(with(config, R"({"partial_rotary_factor": 1})")).rotary.dim, 16) << type;
    EXPECT_THAT(refusal(with(config, R"({"rope_parameters": {"sliding_attention": {"rope_theta": 500},
                                         "full_attention": {"rope_theta": 5000}}})")),
                HasSubstr("accepted: one set of values for all layers"))
        << type;
  }
  for (const char* type : {"phi3", "glm", "stablelm"}) {
    const json config = with(llama(), fmt::format(R"({{"model_type": "{}", "head_dim": 16}})", type));
    EXPECT_EQ(parse(with(config, R"({"partial_rotary_factor": 0.75})")).rotary.dim, 12) << type;
  }
  for (const char* type : {"gemma3_text", "olmo3"}) {
    const json config = with(llama(), fmt::format(R"({{"model_type": "{}", "head_dim": 16}})", type));
    const ModelConfig read =
        parse(with(config, R"({"rope_parameters": {"sliding_attention": {"rope_theta": 500},
                                                    "full_attention": {"rope_theta": 5000}}})"));
    EXPECT_EQ(read.rotary.theta, 5000) << type;
    EXPECT_EQ(read.local_rotary->theta, 500) << type;
  }
}

}  // namespace
}  // namespace qeval::model
