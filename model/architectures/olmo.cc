#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Norms of updates only, and of whole projected queries and keys.
ModelConfig read_any_olmo(const JsonObject& fields, const ConfigDefaults& defaults) {
  ModelConfig config = read_common(fields, defaults);
  read_attention_bias(fields, config);
  config.form = BlockForm::update_norms;
  config.qk_norm = QkNorm::full_width;
  return config;
}

ModelConfig read_olmo2(const JsonObject& fields) {
  return read_any_olmo(fields, {.context = 2048, .eps = 1e-5});
}

ModelConfig read_olmo3(const JsonObject& fields) {
  constexpr double kTheta = 500000.0;
  ModelConfig config = read_any_olmo(
      fields, {.context = 65536, .theta = kTheta, .eps = 1e-5, .windows = true, .ropes_by_type = true});
  if (!config.local_rotary) {
    // The older spelling: scaling is of the full layers only, and transformers gives the others this base
    // whatever rope_theta says.
    config.local_rotary = Rotary{.theta = kTheta, .dim = config.rotary.dim, .scaling = {}};
  }
  const auto slides = [](int64_t i) { return (i + 1) % 4 != 0; };
  const std::vector<bool> sliding = sliding_layers(fields, config.num_layers, slides);
  set_windows(sliding, read_window(fields, 4096).value_or(0), config);
  for (size_t i = 0; i < sliding.size(); ++i) config.layers[i].local_rotary = sliding[i];
  return config;
}

ModelConfig read_olmoe(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 4096, .eps = 1e-5});
  read_attention_bias(fields, config);
  config.qk_norm = QkNorm::full_width;
  config.qkv_clip = static_cast<float>(fields.number("clip_qkv", 0.0));
  if (!(config.qkv_clip >= 0)) fields.refuse("clip_qkv", "above 0, or null");
  config.experts = read_experts(fields, {.count = 64, .used = 8, .inner_key = "intermediate_size"});
  config.experts->route.normalize = fields.boolean("norm_topk_prob", false);
  set_sparse(config, [](int64_t) { return true; });
  return config;
}

void rename_olmoe(const ModelConfig&, TensorNames& names) {
  name_experts(names, {});
}

nlohmann::json translate_olmoe(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "olmoe", {.whole_head = true, .experts = true});
  translate_experts(settings, document);
  document["intermediate_size"] = document["moe_intermediate_size"];
  document["norm_topk_prob"] = false;  // in llama.cpp, whatever the model's settings say
  const double clip = settings.number("attention.clamp_kqv", 0.0);
  if (clip > 0) document["clip_qkv"] = clip;
  return document;
}

/// OLMo 3 is an OLMo 2 with windows. Layers that have one rotate by the same base, unscaled.
nlohmann::json translate_olmo2(const GgufSettings& settings) {
  const GgufForm form{.whole_head = true, .windows = GgufForm::Windows::known};
  nlohmann::json document = translate_common(settings, "olmo2", form);
  if (settings.integer("attention.sliding_window", 0) == 0) return document;
  document["model_type"] = "olmo3";
  translate_windows(settings, 0, 4, document);
  const nlohmann::json full = document["rope_parameters"];
  document["rope_parameters"] = {
      {"full_attention", full},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", full["rope_theta"]}}}};
  return document;
}

}  // namespace

std::vector<Architecture> olmo_family() {
  return {{"olmo2", read_olmo2, nullptr, "olmo2", translate_olmo2},
          {"olmo3", read_olmo3, nullptr, {}, nullptr, nullptr, "olmo2"},
          {"olmoe", read_olmoe, rename_olmoe, "olmoe", translate_olmoe}};
}

}  // namespace qeval::model
