#include <algorithm>
#include <cmath>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// A Llama with four factors: of the embedding, the scores, every update and the logits.
ModelConfig read_granite(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 2048});
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  const auto factor = [&](const char* key) {
    const double value = fields.number(key, 1.0);
    if (static_cast<float>(value) == 0) fields.refuse(key, "a number other than 0");
    return value;
  };
  config.embedding_factor = static_cast<float>(factor("embedding_multiplier"));
  config.attention_scale = static_cast<float>(factor("attention_multiplier"));
  config.residual_factor = static_cast<float>(factor("residual_multiplier"));
  config.logit_factor = static_cast<float>(1 / factor("logits_scaling"));
  return config;
}

ModelConfig read_granitemoe(const JsonObject& fields) {
  ModelConfig config = read_granite(fields);
  config.experts = read_experts(fields, {.count = 8, .used = 2, .inner_key = "intermediate_size"});
  config.experts->route.normalize = true;
  set_sparse(config, [](int64_t) { return true; });
  return config;
}

void rename_granitemoe(const ModelConfig& config, TensorNames& names) {
  rename_module(names, Module::router, "block_sparse_moe.router.layer");
  stack_experts(config, {"block_sparse_moe.input_linear", "block_sparse_moe.output_linear"}, names);
}

/// Mamba-2 on most layers, and experts with a shared one, or that one alone.
ModelConfig read_hybrid(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  document.erase("layer_types");  // read below
  ModelConfig config = read_granite(JsonObject(document, fields.where()));
  config.recurrence = read_mamba(fields, read_expansion(fields) * config.hidden_size);
  Recurrence& r = *config.recurrence;
  r.out_bias = r.in_bias;
  r.norm = Recurrence::Norm::after_gate;
  r.norm_group = r.value_heads * r.value_dim / std::max<int64_t>(1, r.key_heads);
  r.norm_own_weights = true;
  const int64_t shared = fields.integer("shared_intermediate_size", 1024);
  if (fields.integer("num_local_experts", 8) > 0) {
    config.experts = read_experts(fields, {.count = 8, .used = 2, .inner_key = "intermediate_size"});
    config.experts->route.normalize = true;
    config.experts->shared_inner = shared;
    set_sparse(config, [](int64_t) { return true; });
  } else {
    config.intermediate_size = shared;
  }
  const char* key = fields.find("layer_types") != nullptr ? "layer_types" : "layers_block_type";
  if (fields.find(key) != nullptr) {
    set_mixers(fields, key, {"mamba", "linear_attention"}, config);
  } else {
    config.layers.resize(static_cast<size_t>(config.num_layers));
    for (LayerSettings& layer : config.layers) layer.mixer = LayerSettings::Mixer::recurrent;
  }
  const bool rotates = fields.string("position_embedding_type", "nope") == "rope";
  for (LayerSettings& layer : config.layers) layer.rotary = rotates;
  return config;
}

void rename_hybrid(const ModelConfig& config, TensorNames& names) {
  name_mamba(config, {}, names);
  if (!config.experts) {
    fuse_gate_up(config, "shared_mlp.input_linear", names);
    rename_module(names, Module::down, "shared_mlp.output_linear");
    return;
  }
  rename_granitemoe(config, names);
  const int64_t inner = config.experts->shared_inner;
  for (const auto& [module, first] :
       {std::pair{Module::shared_gate, int64_t{0}}, {Module::shared_up, inner}}) {
    names.modules[module] = {
        .name = names.layer + "shared_mlp.input_linear", .first_row = first, .rows = 2 * inner};
  }
  rename_module(names, Module::shared_down, "shared_mlp.output_linear");
}

/// llama.cpp takes a factor of 0 for none, of scores for the usual one. Only the logits' must be there.
nlohmann::json translate_any_granite(const GgufSettings& settings, const char* model_type,
                                     const GgufForm& form) {
  if (!form.by_layer && !settings.boolean("rope.scaling.finetuned", true)) {
    settings.refuse("rope.scaling.finetuned", "false", "true (a rotary embedding)");
  }
  nlohmann::json document = translate_common(settings, model_type, form);
  document["mlp_bias"] = settings.has_tensor("blk.0.ffn_down.bias");
  const auto factor = [&](const char* key, double usual) {
    const double value = settings.number(key, 0.0);
    return value == 0 ? usual : value;
  };
  document["embedding_multiplier"] = factor("embedding_scale", 1);
  document["attention_multiplier"] =
      factor("attention.scale", 1 / std::sqrt(document["head_dim"].get<double>()));
  document["residual_multiplier"] = factor("residual_scale", 1);
  document["logits_scaling"] = form.by_layer ? factor("logit_scale", 1) : settings.number("logit_scale");
  return document;
}

nlohmann::json translate_granite(const GgufSettings& settings) {
  return translate_any_granite(settings, "granite", {.whole_head = true});
}

nlohmann::json translate_granitemoe(const GgufSettings& settings) {
  nlohmann::json document =
      translate_any_granite(settings, "granitemoe", {.whole_head = true, .experts = true});
  translate_experts(settings, document);
  if (document.contains("shared_expert_intermediate_size")) {
    settings.refuse("expert_shared_feed_forward_length",
                    document["shared_expert_intermediate_size"].get<int64_t>(), "0 (no shared expert)");
  }
  document["intermediate_size"] = document["moe_intermediate_size"];
  return document;
}

nlohmann::json translate_hybrid(const GgufSettings& settings) {
  nlohmann::json document = translate_any_granite(settings, "granitemoehybrid",
                                                  {.whole_head = true, .by_layer = true, .experts = true});
  translate_mamba(settings, document);
  const auto hidden = document["hidden_size"].get<int64_t>();
  if (const int64_t inner = settings.integer("ssm.inner_size"); inner != 2 * hidden) {
    settings.refuse("ssm.inner_size", inner, fmt::format("twice the embedding's length, {}", 2 * hidden));
  }
  document["position_embedding_type"] = settings.boolean("rope.scaling.finetuned", true) ? "rope" : "nope";
  nlohmann::json types = nlohmann::json::array();
  for (int64_t i = 0; i < document["num_hidden_layers"].get<int64_t>(); ++i) {
    types.push_back(settings.has_tensor(fmt::format("blk.{}.ssm_in.weight", i)) ? "mamba" : "attention");
  }
  document["layer_types"] = types;
  if (settings.integer("expert_count", 0) > 0) {
    translate_experts(settings, document);
    document["intermediate_size"] = document["moe_intermediate_size"];
    document["shared_intermediate_size"] = document.value("shared_expert_intermediate_size", int64_t{0});
  } else {
    document["num_local_experts"] = 0;
    document["shared_intermediate_size"] = document["intermediate_size"];
  }
  return document;
}

void rename_gguf_hybrid(const GgufFile& file, const ModelConfig& config, TensorNames& names) {
  pair_rotary_rows(file, config, names);
  name_gguf_mamba(config, names);
}

}  // namespace

std::vector<Architecture> granite_family() {
  return {{"granite", read_granite, nullptr, "granite", translate_granite, pair_rotary_rows},
          {"granitemoe", read_granitemoe, rename_granitemoe, "granitemoe", translate_granitemoe,
           pair_rotary_rows},
          {"granitemoehybrid", read_hybrid, rename_hybrid, "granitehybrid", translate_hybrid,
           rename_gguf_hybrid}};
}

}  // namespace qeval::model
