#include <algorithm>

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Attention and Mamba-2 side by side, and factors nearly everywhere.
ModelConfig read_falcon_h1(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 8192, .kv_heads = 8, .eps = 1e-5});
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  const auto factor = [&](const char* key) { return static_cast<float>(fields.number(key, 1.0)); };
  config.embedding_factor = factor("embedding_multiplier");
  config.logit_factor = factor("lm_head_multiplier");
  config.key_factor = factor("key_multiplier");
  config.attention_in = factor("attention_in_multiplier");
  config.attention_out = factor("attention_out_multiplier");
  const auto list = [&](const char* key, size_t count) {
    std::vector<double> values(count, 1.0);
    if (fields.find(key) != nullptr) values = fields.numbers(key);
    if (values.size() != count) fields.refuse(key, fmt::format("a list of {} numbers", count));
    return values;
  };
  const std::vector<double> mlp = list("mlp_multipliers", 2);
  config.gate_factor = static_cast<float>(mlp[0]);
  config.mlp_factor = static_cast<float>(mlp[1]);

  const int64_t inner = fields.find("mamba_d_ssm") == nullptr && fields.has("mamba_d_ssm")
                            ? read_expansion(fields) * config.hidden_size
                            : fields.integer("mamba_d_ssm", 1024);
  Recurrence r = read_mamba(fields, inner);
  r.out_bias = fields.boolean("projectors_bias", false);
  r.in_factor = factor("ssm_in_multiplier");
  r.out_factor = factor("ssm_out_multiplier");
  const std::vector<double> parts = list("ssm_multipliers", 5);
  for (size_t i = 0; i < parts.size(); ++i) r.factors[i] = static_cast<float>(parts[i]);
  if (fields.boolean("mamba_rms_norm", false)) {
    r.norm = fields.boolean("mamba_norm_before_gate", true) ? Recurrence::Norm::before_gate
                                                            : Recurrence::Norm::after_gate;
    r.norm_group = inner / std::max<int64_t>(1, r.key_heads);  // 0 is refused later
    r.norm_own_weights = true;
  }
  config.recurrence = r;
  config.layers.assign(static_cast<size_t>(config.num_layers),
                       LayerSettings{.mixer = LayerSettings::Mixer::both});
  return config;
}

void rename_falcon_h1(const ModelConfig& config, TensorNames& names) {
  rename_module(names, Module::post_attention_norm, "pre_ff_layernorm");
  rename_module(names, Module::gate, "feed_forward.gate_proj");
  rename_module(names, Module::up, "feed_forward.up_proj");
  rename_module(names, Module::down, "feed_forward.down_proj");
  names.modules[Module::final_norm].name = "final_layernorm";
  name_mamba(config, {}, names);
}

/// The converter has multiplied the factors into the weights.
nlohmann::json translate_falcon_h1(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "falcon_h1", {.whole_head = true});
  translate_mamba(settings, document);
  document["mamba_d_ssm"] = settings.integer("ssm.inner_size");
  document["mamba_rms_norm"] = settings.has_tensor("blk.0.ssm_norm.weight");
  document["mamba_norm_before_gate"] = false;
  document["mlp_bias"] = settings.has_tensor("blk.0.ffn_down.bias");
  return document;
}

void rename_gguf_falcon_h1(const GgufFile& file, const ModelConfig& config, TensorNames& names) {
  // llama.cpp's converter leaves out ".weight" here, and llama.cpp asks for no other name.
  names.modules[Module::post_attention_norm].bare = file.find("blk.0.ffn_norm.weight") == nullptr;
  name_gguf_mamba(config, names);
}

}  // namespace

std::vector<Architecture> falcon_h1_family() {
  return {{"falcon_h1", read_falcon_h1, rename_falcon_h1, "falcon-h1", translate_falcon_h1,
           rename_gguf_falcon_h1}};
}

}  // namespace qeval::model
