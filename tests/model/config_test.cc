#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/checkpoint/gguf.h"
#include "tests/model/config_builder.h"

namespace qeval::model {
namespace {

using fixtures::error_of, fixtures::parse, fixtures::refusal;
using fixtures::llama, fixtures::with, fixtures::without;
using nlohmann::json;
using testing::HasSubstr;

json unified() {
  return with(
      without(llama(), "rms_norm_eps"),
      R"({"model_type": "hfmodel", "norm_class": "rmsnorm", "layer_norm_eps": 1e-6, "head_dim": null, "partial_rotary_factor": 0.5, "attention_bias": true, "use_qkv_bias_only": true, "mlp_bias": true, "normalize_embed": true, "num_linears_per_mlp": 3, "l2norm_as_rmsnorm": true, "hidden_act": "gelu", "tie_word_embeddings": true})");
}

TEST(HuggingFaceConfig, Llama) {
  const ModelConfig config = parse(llama());
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 160);
  EXPECT_EQ(config.num_layers, 3);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rotary.dim, 16);
  EXPECT_EQ(config.max_position_embeddings, 256);
  EXPECT_EQ(config.rotary.theta, 10000.0);
  EXPECT_EQ(config.rotary.scaling.kind, RopeScaling::Kind::none);
  EXPECT_EQ(config.norm, NormKind::rms);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_EQ(config.activation, Activation::silu);
  EXPECT_FALSE(config.norm_weight_plus_one || config.scale_embedding || config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias || config.o_bias || config.mlp_bias || config.l2norm_as_rmsnorm);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_id, 2);
  EXPECT_EQ(parse(without(llama(), "num_key_value_heads")).num_kv_heads, 4);
  EXPECT_EQ(parse(with(llama(), R"({"head_dim": 32})")).head_dim, 32);
}

TEST(HuggingFaceConfig, LlamaBiases) {
  const ModelConfig config = parse(with(llama(), R"({"attention_bias": true, "mlp_bias": true})"));
  EXPECT_TRUE(config.qkv_bias && config.o_bias && config.mlp_bias);
}

TEST(HuggingFaceConfig, TokenIdsMayBeListsOrMissing) {
  const ModelConfig config = parse(with(llama(), R"({"bos_token_id": null, "eos_token_id": [5, 6]})"));
  EXPECT_EQ(config.bos_token_id, std::nullopt);
  EXPECT_EQ(config.eos_token_id, 5);
  EXPECT_EQ(parse(with(llama(), R"({"eos_token_id": -1})")).eos_token_id, std::nullopt);
  EXPECT_EQ(parse(with(llama(), R"({"eos_token_id": []})")).eos_token_id, std::nullopt);
  const ModelConfig beyond = parse(with(llama(), R"({"bos_token_id": 100000})"));
  EXPECT_EQ(beyond.bos_token_id, std::nullopt);
  ASSERT_EQ(beyond.warnings.size(), 1U);
  EXPECT_THAT(beyond.warnings[0], HasSubstr("bos_token_id is 100000, but there are"));
}

TEST(HuggingFaceConfig, ContextDefaultsAreTransformers) {
  const auto context = [](const char* type) {
    return parse(without(with(llama(), fmt::format(R"({{"model_type": "{}"}})", type)),
                         "max_position_embeddings"))
        .max_position_embeddings;
  };
  EXPECT_EQ(context("llama"), 2048);
  EXPECT_EQ(context("gemma"), 8192);
  EXPECT_EQ(context("stablelm"), 4096);
  EXPECT_THAT(refusal(without(unified(), "max_position_embeddings")),
              HasSubstr("max_position_embeddings is missing"));
}

TEST(HuggingFaceConfig, ActivationsHaveSeveralNames) {
  const auto activation = [](const char* name) {
    return parse(with(llama(), fmt::format(R"({{"hidden_act": "{}"}})", name))).activation;
  };
  EXPECT_EQ(activation("swish"), Activation::silu);
  EXPECT_EQ(activation("gelu_python"), Activation::gelu_erf);
  EXPECT_EQ(activation("gelu_new"), Activation::gelu_tanh);
  EXPECT_EQ(activation("gelu_fast"), Activation::gelu_tanh);
}

TEST(HuggingFaceConfig, NullIsAbsent) {
  const ModelConfig plain = parse(llama());
  const ModelConfig config =
      parse(with(llama(), R"({"num_local_experts": null, "layer_types": null, "head_dim": null,
      "rope_theta": null, "rope_scaling": null, "rope_parameters": null, "partial_rotary_factor": null,
      "attention_bias": null, "mlp_bias": null, "tie_word_embeddings": null, "hidden_act": null,
      "sliding_window": null, "use_sliding_window": null, "quantization_config": null, "text_config": null})"));
  EXPECT_EQ(unified_config(config, "float32"), unified_config(plain, "float32"));
}

TEST(HuggingFaceConfig, TextConfigOfALargerModel) {
  const json outer = {{"model_type", "llava"}, {"tie_word_embeddings", true}, {"text_config", llama()}};
  const ModelConfig config = parse(outer);
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_TRUE(config.tie_word_embeddings);  // nothing in the inner one
  json untied = outer;
  untied["text_config"]["tie_word_embeddings"] = false;
  EXPECT_FALSE(parse(untied).tie_word_embeddings);
  untied["text_config"]["hidden_size"] = 0;
  EXPECT_THAT(refusal(untied), HasSubstr("config.json: text_config: hidden_size is 0"));
  // How tensors are coded is no property of the model: what reads them looks at it (checkpoint/quantized/).
  EXPECT_EQ(parse(with(outer, R"({"quantization_config": {"bits": 4}})")).source.find("quantization_config"),
            std::string::npos);
  EXPECT_THAT(refusal(with(outer, R"({"text_config": 3})")),
              HasSubstr("text_config is 3; accepted: an object"));
}

void expect_llama3(const ModelConfig& config) {
  EXPECT_EQ(config.rotary.theta, 500000.0);
  EXPECT_EQ(config.rotary.scaling.kind, RopeScaling::Kind::llama3);
  EXPECT_EQ(config.rotary.scaling.factor, 8.0);
  EXPECT_EQ(config.rotary.scaling.low_freq_factor, 1.5);
  EXPECT_EQ(config.rotary.scaling.high_freq_factor, 4.5);
  EXPECT_EQ(config.rotary.scaling.original_max_position_embeddings, 64);
}

TEST(HuggingFaceConfig, RopeInOldAndNewSpelling) {
  const std::string llama3 =
      R"("factor": 8.0, "low_freq_factor": 1.5, "high_freq_factor": 4.5, "original_max_position_embeddings": 64})";
  for (const char* begin : {R"({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", )",
                            R"({"rope_theta": 500000, "rope_scaling": {"type": "llama3", )",
                            R"({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, )"}) {
    expect_llama3(parse(with(llama(), begin + llama3 + "}")));
  }
  const ModelConfig linear = parse(with(llama(), R"({"rope_scaling": {"type": "linear", "factor": 2.0}})"));
  EXPECT_EQ(linear.rotary.scaling.kind, RopeScaling::Kind::linear);
  EXPECT_EQ(linear.rotary.scaling.factor, 2.0);
  EXPECT_EQ(parse(with(llama(), R"({"rope_scaling": null})")).rotary.scaling.kind, RopeScaling::Kind::none);
}

TEST(HuggingFaceConfig, Llama3ScalingKnowsItsLengthWithoutBeingTold) {
  const auto length = [](const char* beside, const char* inside) {
    return parse(with(llama(), fmt::format(R"({{{} "rope_scaling": {{"rope_type": "llama3", "factor": 8.0, {}
                                 "low_freq_factor": 1.0, "high_freq_factor": 4.0}}}})",
                                           beside, inside)))
        .rotary.scaling.original_max_position_embeddings;
  };
  EXPECT_EQ(length("", R"("original_max_position_embeddings": 64,)"), 64);
  EXPECT_EQ(length("", R"("original_max_position_embeddings": null,)"), 256);  // max_position_embeddings
  EXPECT_EQ(length(R"("original_max_position_embeddings": 128,)", ""), 128);
  EXPECT_EQ(
      length(R"("original_max_position_embeddings": 128,)", R"("original_max_position_embeddings": 64,)"),
      128);
}

TEST(UnifiedConfig, ReadsItsFields) {
  const ModelConfig config = parse(unified());
  EXPECT_EQ(config.architecture, "hfmodel");
  EXPECT_EQ(config.norm, NormKind::rms);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rotary.dim, 8);
  EXPECT_EQ(config.activation, Activation::gelu_erf);
  EXPECT_TRUE(config.qkv_bias && config.mlp_bias && config.scale_embedding && config.l2norm_as_rmsnorm);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.o_bias || config.norm_weight_plus_one);
  EXPECT_TRUE(parse(with(unified(), R"({"use_qkv_bias_only": false})")).o_bias);
  const ModelConfig layer = parse(with(unified(), R"({"norm_class": "layernorm"})"));
  EXPECT_EQ(layer.norm, NormKind::layer);
  EXPECT_FALSE(layer.l2norm_as_rmsnorm);
}

TEST(UnifiedConfig, RefusesWhatTheDecoderLacks) {
  EXPECT_THAT(refusal(with(unified(), R"({"norm_class": "batchnorm"})")),
              HasSubstr("accepted: rmsnorm, layernorm"));
  EXPECT_THAT(refusal(without(unified(), "norm_class")), HasSubstr("norm_class is missing"));
  EXPECT_THAT(refusal(with(unified(), R"({"num_linears_per_mlp": 2})")),
              HasSubstr("num_linears_per_mlp is 2"));
  for (const char* key : {"shared_attention_norm", "parallel_residual", "qk_layernorm", "use_megablocks"}) {
    EXPECT_THAT(refusal(with(unified(), fmt::format(R"({{"{}": true}})", key))),
                HasSubstr(std::string(key) + " is true"));
  }
  EXPECT_THAT(refusal(with(unified(), R"({"num_local_experts": 8})")), HasSubstr("mixture of experts"));
  EXPECT_THAT(refusal(with(unified(), R"({"sliding_window": 4096})")), HasSubstr("sliding_window is 4096"));
}

TEST(UnifiedConfig, WritesWhatItReads) {
  const std::vector<json> sources{
      llama(),
      unified(),
      with(llama(), R"({"model_type": "gemma", "head_dim": 32, "hidden_act": "silu"})"),
      with(llama(), R"({"model_type": "stablelm", "use_qkv_bias": true})"),
      with(llama(), R"({"attention_bias": true})"),
      with(llama(), R"({"rope_scaling": {"type": "linear", "factor": 4.0}})"),
      with(llama(), R"({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}})")};
  for (const json& source : sources) {
    const ModelConfig config = parse(source);
    const json written = unified_config(config, "float16");
    EXPECT_EQ(written["torch_dtype"], "float16");
    EXPECT_EQ(written["model_type"], "hfmodel");
    // A second pass through the file changes nothing that the writer knows.
    EXPECT_EQ(unified_config(parse(written), "float16"), written);
    EXPECT_EQ(parse(written).rotary.dim, config.rotary.dim);
    EXPECT_EQ(parse(written).o_bias, config.o_bias);
  }
}

struct BadField {
  const char* change;
  const char* message;
};

class BadConfig : public testing::TestWithParam<BadField> {};

TEST_P(BadConfig, IsRefusedByName) {
  EXPECT_THAT(refusal(with(llama(), GetParam().change)),
              testing::AllOf(HasSubstr("config.json"), HasSubstr(GetParam().message)));
}

constexpr BadField kBadFields[] = {
    {R"({"model_type": "mamba"})", "model_type is \"mamba\"; accepted: apertus, "},
    {R"({"model_type": 3})", "model_type is 3"},
    {R"({"hidden_act": "quick_gelu"})",
     "hidden_act is \"quick_gelu\"; accepted: silu, gelu, gelu_pytorch_tanh"},
    {R"({"hidden_size": 0})", "hidden_size is 0"},
    {R"({"hidden_size": -64})", "hidden_size is -64"},
    {R"({"hidden_size": 64.5})", "hidden_size is 64.5"},
    {R"({"hidden_size": "64"})", "hidden_size is \"64\""},
    {R"({"hidden_size": 9223372036854775808})", "hidden_size is 9223372036854775808"},
    {R"({"hidden_size": 1073741824})", "hidden_size is"},
    {R"({"hidden_size": 66})", "a divisor of hidden_size"},
    {R"({"vocab_size": 1099511627776})", "vocab_size is"},
    {R"({"vocab_size": null})", "vocab_size is missing"},
    {R"({"num_hidden_layers": 1000000})", "num_hidden_layers"},
    {R"({"num_attention_heads": 0})", "num_attention"},
    {R"({"num_key_value_heads": 3})", "a divisor of num_attention_heads"},
    {R"({"num_key_value_heads": 8})", "num_key_value_heads is 8"},
    {R"({"head_dim": 15})", "even number"},
    {R"({"head_dim": 9223372036854775807})", "head_dim is"},
    {R"({"rms_norm_eps": 0.0})", "eps is 0"},
    {R"({"rms_norm_eps": -1e-5})", "eps is -1e-05"},
    {R"({"rope_theta": 0})", "rope_theta is 0"},
    {R"({"rope_theta": "x"})", "rope_theta is \"x\""},
    {R"({"partial_rotary_factor": 0.5})",
     "partial_rotary_factor is 0.5; accepted: 1 (the family rotates whole heads)"},
    {R"({"rope_scaling": {"type": "ntk", "factor": 2}})",
     "type is \"ntk\"; accepted: default, linear, llama3, dynamic, yarn, longrope"},
    {R"({"rope_scaling": {"rope_type": "linear"}})", "rope_scaling: factor is missing"},
    {R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})", "factor is 0"},
    {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
         "original_max_position_embeddings": 64}})",
     "high_freq_factor is 1; accepted: above low_freq_factor, 4"},
    {R"({"rope_scaling": 2.0})", "rope_scaling is 2.0; accepted: an object"},
    {R"({"rope_parameters": {"full_attention": {}}})", "one set of values"},
    {R"({"sliding_window": 128})", "sliding_window is 128"},
    {R"({"layer_types": ["full_attention", "sliding_attention"]})", "layer_types"},
    {R"({"eos_token_id": -2})", "eos_token_id is -2"},
    {R"({"tie_word_embeddings": 1})", "tie_word_embeddings is 1"},
};

INSTANTIATE_TEST_SUITE_P(Fields, BadConfig, testing::ValuesIn(kBadFields));

TEST(HuggingFaceConfig, RefusesDamagedFiles) {
  const fixtures::TemporaryFolder folder;
  const auto path = folder / "config.json";
  fixtures::expect_error_at_every_length(path, fixtures::tiny_config(), [&] { read_config(path); });
  EXPECT_THAT(error_of([&] { read_config(folder / "missing.json"); }),
              HasSubstr("missing.json: cannot open"));
}

class GgufConfig : public testing::Test {
 protected:
  ModelConfig parse_gguf(const fixtures::GgufParts& parts) {
    fixtures::write(folder_ / "x.gguf", fixtures::gguf(parts));
    return read_config(GgufFile(folder_ / "x.gguf"));
  }
  std::string refusal_with(const std::string& value) {
    fixtures::GgufParts parts = fixtures::tiny_gguf();
    parts.values.push_back(value);
    return error_of([&] { parse_gguf(parts); });
  }
  fixtures::TemporaryFolder folder_;
};

TEST_F(GgufConfig, Llama) {
  fixtures::GgufParts parts = fixtures::tiny_gguf();
  parts.values.push_back(fixtures::gguf_f32("llama.rope.freq_base", 500000.0F));
  parts.values.push_back(fixtures::gguf_u32("tokenizer.ggml.bos_token_id", 1));
  parts.values.push_back(fixtures::gguf_u32("tokenizer.ggml.eos_token_id", 0xFFFFFFFF));  // counts as none
  parts.values.push_back(fixtures::gguf_text("llama.rope.scaling.type", "linear"));
  parts.values.push_back(fixtures::gguf_f32("llama.rope.scaling.factor", 2.0F));
  const ModelConfig config = parse_gguf(parts);
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.vocab_size, fixtures::kTinyVocab);
  EXPECT_EQ(config.hidden_size, fixtures::kTinyHidden);
  EXPECT_EQ(config.intermediate_size, fixtures::kTinyInner);
  EXPECT_EQ(config.num_layers, fixtures::kTinyLayers);
  EXPECT_EQ(config.num_heads, fixtures::kTinyHeads);
  EXPECT_EQ(config.num_kv_heads, fixtures::kTinyKvHeads);
  EXPECT_EQ(config.head_dim, fixtures::kTinyHeadDim);
  EXPECT_EQ(config.rotary.dim, fixtures::kTinyHeadDim);
  EXPECT_EQ(config.rotary.theta, 500000.0);
  EXPECT_EQ(config.rotary.scaling.kind, RopeScaling::Kind::linear);
  EXPECT_EQ(config.rotary.scaling.factor, 2.0);
  EXPECT_FLOAT_EQ(static_cast<float>(config.norm_eps), 1e-5F);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_id, std::nullopt);
  EXPECT_FALSE(config.tie_word_embeddings || config.qkv_bias || config.scale_embedding);
}

/// llama.cpp's reading: without a type a factor is linear, and under the type "none" it does not count.
TEST_F(GgufConfig, RopeFactorWithoutAType) {
  using fixtures::gguf_f32, fixtures::gguf_text, fixtures::gguf_u32;
  const auto scaling = [&](std::vector<std::string> values) {
    fixtures::GgufParts parts = fixtures::tiny_gguf();
    for (std::string& value : values) parts.values.push_back(std::move(value));
    return parse_gguf(parts).rotary.scaling;
  };
  for (const auto& values : std::vector<std::vector<std::string>>{
           {gguf_f32("llama.rope.scaling.factor", 4.0F)},
           {gguf_u32("llama.rope.scaling.factor", 4)},
           {gguf_f32("llama.rope.scale_linear", 4.0F)},
           {gguf_u32("llama.rope.scale_linear", 4)},
           {gguf_f32("llama.rope.scaling.factor", 4.0F), gguf_f32("llama.rope.scale_linear", 2.0F)},
           {gguf_text("llama.rope.scaling.type", "linear"), gguf_f32("llama.rope.scale_linear", 4.0F)}}) {
    EXPECT_EQ(scaling(values).kind, RopeScaling::Kind::linear);
    EXPECT_EQ(scaling(values).factor, 4.0);
  }
  for (const auto& values : std::vector<std::vector<std::string>>{
           {},
           {gguf_f32("llama.rope.scaling.factor", 1.0F)},
           {gguf_f32("llama.rope.scaling.factor", 0.0F)},
           {gguf_text("llama.rope.scaling.type", "none"), gguf_f32("llama.rope.scaling.factor", 4.0F)}}) {
    EXPECT_EQ(scaling(values).kind, RopeScaling::Kind::none);
  }
  EXPECT_THAT(refusal_with(gguf_f32("llama.rope.scaling.factor", -2.0F)), HasSubstr("factor is -2"));
}

TEST_F(GgufConfig, GemmaAndStableLm) {
  fixtures::GgufParts parts = fixtures::tiny_gguf({.qkv_bias = true, .head = false});
  const auto rename = [&](const std::string& architecture) {
    fixtures::GgufParts renamed = parts;
    renamed.values = {fixtures::gguf_text("general.architecture", architecture),
                      fixtures::gguf_u32(architecture + ".block_count", 2),
                      fixtures::gguf_u32(architecture + ".context_length", 128),
                      fixtures::gguf_u32(architecture + ".embedding_length", 32),
                      fixtures::gguf_u32(architecture + ".feed_forward_length", 64),
                      fixtures::gguf_u32(architecture + ".attention.head_count", 4)};
    return renamed;
  };
  fixtures::GgufParts gemma = rename("gemma");
  gemma.values.push_back(fixtures::gguf_f32("gemma.attention.layer_norm_rms_epsilon", 1e-6F));
  gemma.values.push_back(fixtures::gguf_u32("gemma.attention.key_length", 16));
  const ModelConfig gemma_config = parse_gguf(gemma);
  EXPECT_EQ(gemma_config.head_dim, 16);
  EXPECT_EQ(gemma_config.num_kv_heads, 4);
  EXPECT_EQ(gemma_config.activation, Activation::gelu_tanh);
  EXPECT_TRUE(gemma_config.scale_embedding && gemma_config.tie_word_embeddings);
  EXPECT_FALSE(gemma_config.norm_weight_plus_one);  // the converter has added it

  fixtures::GgufParts stablelm = rename("stablelm");
  stablelm.values.push_back(fixtures::gguf_f32("stablelm.attention.layer_norm_epsilon", 1e-5F));
  stablelm.values.push_back(fixtures::gguf_u32("stablelm.rope.dimension_count", 2));
  const ModelConfig stablelm_config = parse_gguf(stablelm);
  EXPECT_EQ(stablelm_config.norm, NormKind::layer);
  EXPECT_EQ(stablelm_config.rotary.dim, 2);
  EXPECT_TRUE(stablelm_config.qkv_bias);
  EXPECT_FALSE(stablelm_config.o_bias);
}

TEST_F(GgufConfig, RefusesWhatTheDecoderLacks) {
  using fixtures::gguf_f32, fixtures::gguf_text, fixtures::gguf_u32;
  EXPECT_THAT(refusal_with(gguf_u32("llama.expert_count", 8)), HasSubstr("expert_used_count"));  // Mixtral
  EXPECT_THAT(refusal_with(gguf_text("llama.rope.scaling.type", "ntk")),
              HasSubstr("accepted: none, linear, yarn, longrope"));
  EXPECT_THAT(refusal_with(gguf_u32("llama.attention.value_length", 4)), HasSubstr("value_length is 4"));
  EXPECT_THAT(refusal_with(gguf_u32("llama.rope.dimension_count", 4)), HasSubstr("dimension_count is 4"));
  EXPECT_THAT(refusal_with(gguf_u32("llama.attention.sliding_window", 4)), HasSubstr("sliding_window is 4"));
  fixtures::GgufParts parts = fixtures::tiny_gguf();
  parts.values[0] = gguf_text("general.architecture", "bloom");
  EXPECT_THAT(error_of([&] { parse_gguf(parts); }), HasSubstr("bloom; accepted: apertus, "));
  parts.values.erase(parts.values.begin());
  EXPECT_THAT(error_of([&] { parse_gguf(parts); }), HasSubstr("general.architecture (a string) is missing"));
}

}  // namespace
}  // namespace qeval::model
