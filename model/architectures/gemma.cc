#include <cmath>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// What all Gemmas share. Early files of the first say `hidden_act: gelu`, the erf form, although the model
/// was trained with the tanh form; `hidden_activation` was added to override it. So the latter counts where
/// it is set (docs/decisions.md: releases of transformers differ in this).
ModelConfig read_any_gemma(const JsonObject& fields, int64_t context, int64_t kv_heads,
                           const char* fallback_key, bool windows, bool ropes_by_type = false) {
  ConfigDefaults defaults{.context = context,
                          .kv_heads = kv_heads,
                          .head_dim = 256,
                          .activation_key = fallback_key,
                          .activation = "gelu_pytorch_tanh",
                          .tied = true,
                          .windows = windows,
                          .ropes_by_type = ropes_by_type};
  if (fields.find("hidden_activation") != nullptr) defaults.activation_key = "hidden_activation";
  ModelConfig config = read_common(fields, defaults);
  config.norm_weight_plus_one = true;
  config.scale_embedding = true;
  read_attention_bias(fields, config);
  return config;
}

ModelConfig read_gemma(const JsonObject& fields) {
  return read_any_gemma(fields, 8192, 0, "hidden_act", false);
}

/// Four norms a block, windows, and scores scaled by a number of their own.
ModelConfig read_sandwich(const JsonObject& fields, int64_t context, bool ropes_by_type) {
  ModelConfig config = read_any_gemma(fields, context, 4, "hidden_activation", true, ropes_by_type);
  config.form = BlockForm::sandwich;
  config.attention_scale = static_cast<float>(std::pow(fields.number("query_pre_attn_scalar", 256.0), -0.5));
  return config;
}

ModelConfig read_gemma2(const JsonObject& fields) {
  ModelConfig config = read_sandwich(fields, 8192, false);
  const auto cap = [&](const char* key, double fallback) {
    return fields.has(key) ? static_cast<float>(fields.number(key, 0.0)) : static_cast<float>(fallback);
  };
  config.score_softcap = cap("attn_logit_softcapping", 50);
  config.logit_softcap = cap("final_logit_softcapping", 30);
  if (const auto window = read_window(fields, 4096)) {
    set_windows(sliding_layers(fields, config.num_layers, [](int64_t i) { return i % 2 == 0; }), *window,
                config);
  }
  return config;
}

/// Gemma 2 without the norms of updates.
ModelConfig read_vaultgemma(const JsonObject& fields) {
  ModelConfig config = read_gemma2(fields);
  config.form = BlockForm::pre;
  return config;
}

void rename_vaultgemma(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::post_attention_norm, "pre_feedforward_layernorm");
}

/// By the type of a layer, or as older files have it: what stands at the top is of the full layers, and the
/// others' base stands apart. A type that is not there has its default.
void read_ropes(const JsonObject& fields, ModelConfig& config) {
  const ConfigDefaults defaults{.theta = 1000000.0};
  const char* key = fields.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const std::optional<JsonObject> rope =
      fields.find(key) != nullptr ? std::optional(fields.object(key)) : std::nullopt;
  const auto of_type = [&](const char* type) {
    return rope && rope->find(type) != nullptr ? std::optional(rope->object(type)) : std::nullopt;
  };
  const std::optional<JsonObject> full = of_type("full_attention"), sliding = of_type("sliding_attention");
  const std::optional<JsonObject>& of_full = full || sliding ? full : rope;
  config.rotary = read_rotary(fields, of_full ? &*of_full : nullptr, defaults, config);
  config.local_rotary = Rotary{.dim = config.head_dim, .scaling = {}};
  if (sliding) config.local_rotary = read_rotary(fields, &*sliding, defaults, config);
  if (!sliding || sliding->find("rope_theta") == nullptr) {
    config.local_rotary->theta = fields.number("rope_local_base_freq", 10000.0);
  }
}

ModelConfig read_gemma3(const JsonObject& fields) {
  ModelConfig config = read_sandwich(fields, 131072, true);
  config.qk_norm = QkNorm::head;
  config.score_softcap = static_cast<float>(fields.number("attn_logit_softcapping", 0.0));
  config.logit_softcap = static_cast<float>(fields.number("final_logit_softcapping", 0.0));
  read_ropes(fields, config);
  const int64_t pattern =
      fields.integer("sliding_window_pattern", fields.integer("_sliding_window_pattern", 6));
  if (pattern < 1) fields.refuse("sliding_window_pattern", "1 or more");
  const auto slides = [&](int64_t i) { return (i + 1) % pattern != 0; };
  const std::vector<bool> sliding = sliding_layers(fields, config.num_layers, slides);
  set_windows(sliding, read_window(fields, 4096).value_or(0), config);
  for (size_t i = 0; i < sliding.size(); ++i) config.layers[i].local_rotary = sliding[i];
  return config;
}

nlohmann::json translate_any_gemma(const GgufSettings& settings, const char* model_type) {
  const GgufForm form{.whole_head = true, .windows = GgufForm::Windows::known};
  nlohmann::json document = translate_common(settings, model_type, form);
  document["hidden_activation"] = "gelu_pytorch_tanh";
  return document;
}

nlohmann::json translate_gemma(const GgufSettings& settings) {
  const auto window = settings.integer("attention.sliding_window", 0);
  if (window > 0) settings.refuse("attention.sliding_window", window, "0");
  return translate_any_gemma(settings, "gemma");
}

/// Files do not say by what scores are scaled; llama.cpp knows the largest model, the only one that is not
/// scaled by its head's size, by its layers.
void translate_scale(const GgufSettings& settings, int64_t layers_of_largest, nlohmann::json& document) {
  const bool largest = settings.integer("block_count") == layers_of_largest;
  document["query_pre_attn_scalar"] =
      largest ? settings.integer("embedding_length") / settings.integer("attention.head_count")
              : document["head_dim"].get<int64_t>();
}

nlohmann::json translate_gemma2(const GgufSettings& settings) {
  nlohmann::json document = translate_any_gemma(settings, "gemma2");
  translate_windows(settings, 4096, 2, document);
  translate_scale(settings, 46, document);
  document["attn_logit_softcapping"] = settings.number("attn_logit_softcapping", 50.0);
  document["final_logit_softcapping"] = settings.number("final_logit_softcapping", 30.0);
  const double base = settings.number("rope.freq_base", 10000.0);
  if (const double local = settings.number("rope.freq_base_swa", base); local != base) {
    settings.refuse("rope.freq_base_swa", local, fmt::format("rope.freq_base, {}", base));
  }
  return document;
}

nlohmann::json translate_gemma3(const GgufSettings& settings) {
  nlohmann::json document = translate_any_gemma(settings, "gemma3_text");
  translate_windows(settings, 0, 6, document);
  translate_scale(settings, 62, document);
  document["final_logit_softcapping"] = settings.number("final_logit_softcapping", 0.0);
  const nlohmann::json full = document["rope_parameters"];
  document["rope_parameters"] = {
      {"full_attention", full},
      {"sliding_attention",
       {{"rope_type", "default"}, {"rope_theta", settings.number("rope.freq_base_swa", 10000.0)}}}};
  return document;
}

}  // namespace

std::vector<Architecture> gemma_family() {
  // Their norms have the +1 already.
  return {{"gemma", read_gemma, nullptr, "gemma", translate_gemma},
          {"gemma2", read_gemma2, nullptr, "gemma2", translate_gemma2},
          {"gemma3_text", read_gemma3, nullptr, "gemma3", translate_gemma3},
          {"vaultgemma", read_vaultgemma, rename_vaultgemma}};
}

}  // namespace qeval::model
