#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Layers from max_window_layers on have the window, if windows are used at all.
void read_windows(const JsonObject& fields, int64_t default_full_layers, ModelConfig& config) {
  const auto window = read_window(fields, 4096);
  if (!window || !fields.boolean("use_sliding_window", false)) return;
  const int64_t full = fields.integer("max_window_layers", default_full_layers);
  set_windows(sliding_layers(fields, config.num_layers, [&](int64_t i) { return i >= full; }), *window,
              config);
}

ModelConfig read_qwen2(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 32768, .kv_heads = 32, .windows = true});
  config.qkv_bias = true;
  read_windows(fields, 28, config);
  return config;
}

ModelConfig read_qwen3(const JsonObject& fields) {
  ModelConfig config =
      read_common(fields, {.context = 32768, .kv_heads = 32, .head_dim = 128, .windows = true});
  read_attention_bias(fields, config);
  config.qk_norm = QkNorm::head;
  read_windows(fields, 28, config);
  return config;
}

nlohmann::json translate_qwen2(const GgufSettings& settings) {
  return translate_common(settings, "qwen2", {.whole_head = true});
}

nlohmann::json translate_qwen3(const GgufSettings& settings) {
  return translate_common(settings, "qwen3", {.whole_head = true});
}

}  // namespace

std::vector<Architecture> qwen_family() {
  return {{"qwen2", read_qwen2, nullptr, "qwen2", translate_qwen2},
          {"qwen3", read_qwen3, nullptr, "qwen3", translate_qwen3}};
}

}  // namespace qeval::model
