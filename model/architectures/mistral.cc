#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Every layer has the window, if there is one.
ModelConfig read_windowed(const JsonObject& fields, const ConfigDefaults& defaults,
                          std::optional<int64_t> default_window) {
  ModelConfig config = read_common(fields, defaults);
  if (const auto window = read_window(fields, default_window)) {
    set_windows(std::vector<bool>(static_cast<size_t>(config.num_layers), true), *window, config);
  }
  return config;
}

ModelConfig read_mistral(const JsonObject& fields) {
  return read_windowed(fields, {.context = 131072, .kv_heads = 8, .windows = true}, 4096);
}

/// Queries grow with their position beyond the original context.
ModelConfig read_ministral3(const JsonObject& fields) {
  const ConfigDefaults defaults{
      .context = 262144, .kv_heads = 8, .head_dim = 128, .eps = 1e-5, .windows = true};
  ModelConfig config = read_windowed(fields, defaults, std::nullopt);
  const char* key = fields.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  if (fields.find(key) != nullptr) {
    config.position_beta = fields.object(key).number("llama_4_scaling_beta", 0.0);
    config.position_original = config.rotary.scaling.original_max_position_embeddings;
    if (!(config.position_original > 0))
      config.position_original = static_cast<double>(config.max_position_embeddings);
  }
  return config;
}

ModelConfig read_mixtral(const JsonObject& fields) {
  const ConfigDefaults defaults{.context = 131072, .kv_heads = 8, .theta = 1e6, .eps = 1e-5, .windows = true};
  ModelConfig config = read_windowed(fields, defaults, std::nullopt);
  config.experts = read_experts(fields, {.count = 8, .used = 2, .inner_key = "intermediate_size"});
  config.experts->route.normalize = true;
  set_sparse(config, [](int64_t) { return true; });
  return config;
}

void rename_mixtral(const ModelConfig&, TensorNames& names) {
  name_experts(names, {.block = "block_sparse_moe", .gate = "w1", .up = "w3", .down = "w2"});
}

nlohmann::json translate_mistral3(const GgufSettings& settings) {
  nlohmann::json document =
      translate_common(settings, "ministral3", {.whole_head = true, .yarn_settings = true});
  document["rope_parameters"]["llama_4_scaling_beta"] = settings.number("attention.temperature_scale", 0.0);
  return document;
}

}  // namespace

std::vector<Architecture> mistral_family() {
  return {{"mistral", read_mistral, nullptr, {}, nullptr, nullptr, "llama"},
          {"mixtral", read_mixtral, rename_mixtral, {}, nullptr, nullptr, "llama"},
          {"ministral3", read_ministral3, nullptr, "mistral3", translate_mistral3, pair_rotary_rows}};
}

}  // namespace qeval::model
