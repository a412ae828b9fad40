#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Windows on every other layer, sinks in the softmax, and experts with a clamped SwiGLU and biases.
ModelConfig read_gpt_oss(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  if (fields.find("rope_parameters") == nullptr && fields.find("rope_scaling") == nullptr) {
    document["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 32.0},
                                {"beta_fast", 32.0},   {"beta_slow", 1.0},
                                {"truncate", false},   {"original_max_position_embeddings", 4096}};
  }
  const JsonObject given(document, fields.where());
  ModelConfig config = read_common(
      given,
      {.context = 131072, .kv_heads = 8, .head_dim = 64, .theta = 150000.0, .eps = 1e-5, .windows = true});
  read_attention_bias(fields, config, true);
  config.attention_sinks = true;
  Experts experts = read_experts(fields, {.count = 128, .used = 4, .inner_key = "intermediate_size"});
  experts.route.normalize = true;
  experts.router_bias = experts.expert_bias = true;
  experts.limit = static_cast<float>(fields.number("swiglu_limit", 7.0));
  experts.slope = static_cast<float>(fields.number("swiglu_alpha", 1.702));
  experts.up_offset = 1;
  if (!(experts.limit > 0)) fields.refuse("swiglu_limit", "above 0");
  config.experts = experts;
  const auto slides = [](int64_t i) { return i % 2 == 0; };
  set_windows(sliding_layers(fields, config.num_layers, slides), read_window(fields, 128).value_or(0),
              config);
  set_sparse(config, [](int64_t) { return true; });
  return config;
}

void rename_gpt_oss(const ModelConfig& config, TensorNames& names) {
  rename_module(names, Module::router, "mlp.router");
  stack_experts(config,
                {.gate_up = "mlp.experts.gate_up_proj",
                 .down = "mlp.experts.down_proj",
                 .bare = true,
                 .alternating = true,
                 .transposed = true},
                names);
  names.vectors[Module::qk_product] = names.layer + "self_attn.sinks";
}

/// llama.cpp knows limit and slope by itself, and rounds YaRN's dimensions.
nlohmann::json translate_gpt_oss(const GgufSettings& settings) {
  nlohmann::json document = translate_common(
      settings, "gpt_oss",
      {.whole_head = true, .windows = GgufForm::Windows::known, .yarn_settings = true, .experts = true});
  translate_experts(settings, document);
  document["intermediate_size"] = document["moe_intermediate_size"];
  translate_windows(settings, settings.integer("attention.sliding_window"), 2, document);
  return document;
}

void rename_gguf_gpt_oss(const GgufFile&, const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::post_attention_norm, "post_attention_norm");
}

}  // namespace

std::vector<Architecture> gpt_oss_family() {
  return {{"gpt_oss", read_gpt_oss, rename_gpt_oss, "gpt-oss", translate_gpt_oss, rename_gguf_gpt_oss}};
}

}  // namespace qeval::model
