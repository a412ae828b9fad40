#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_smollm3(const JsonObject& fields) {
  ModelConfig config = read_common(
      fields, {.context = 32768, .kv_heads = 4, .theta = 2000000.0, .tied = true, .windows = true});
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  config.layers.resize(static_cast<size_t>(config.num_layers));
  if (fields.find("no_rope_layers") != nullptr) {
    // 1 means that the layer has a rotary embedding.
    const std::vector<double> rotates = fields.numbers("no_rope_layers");
    if (rotates.size() != config.layers.size()) fields.refuse("no_rope_layers", "a number per layer");
    for (size_t i = 0; i < rotates.size(); ++i) config.layers[i].rotary = rotates[i] != 0;
  } else {
    const int64_t interval = fields.integer("no_rope_layer_interval", 4);
    if (interval < 1) fields.refuse("no_rope_layer_interval", "1 or more");
    for (size_t i = 0; i < config.layers.size(); ++i) {
      config.layers[i].rotary = (static_cast<int64_t>(i) + 1) % interval != 0;
    }
  }
  const auto window = read_window(fields, std::nullopt);
  if (window && fields.boolean("use_sliding_window", false)) {
    const auto unrotated = [&](int64_t i) { return !config.layers[static_cast<size_t>(i)].rotary; };
    set_windows(sliding_layers(fields, config.num_layers, unrotated), *window, config);
  }
  return config;
}

/// Every fourth layer does not rotate, in llama.cpp without a word of the file.
nlohmann::json translate_smollm3(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "smollm3", {.whole_head = true});
  document["no_rope_layer_interval"] = 4;
  return document;
}

}  // namespace

std::vector<Architecture> smollm3_family() {
  return {{"smollm3", read_smollm3, nullptr, "smollm3", translate_smollm3, pair_rotary_rows}};
}

}  // namespace qeval::model
