#include <algorithm>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Layers from max_window_layers on have the window, if windows are used at all.
void read_windows(const JsonObject& fields, int64_t default_full_layers, ModelConfig& config) {
  if (!fields.boolean("use_sliding_window", false)) return;
  const auto window = read_window(fields, 4096);
  if (!window) return;
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

/// Where experts stand: every decoder_sparse_step-th layer, but for those listed.
void read_sparse_layers(const JsonObject& fields, ModelConfig& config) {
  const int64_t step = fields.integer("decoder_sparse_step", 1);
  if (step < 1) fields.refuse("decoder_sparse_step", "1 or more");
  std::vector<int64_t> dense;
  if (fields.find("mlp_only_layers") != nullptr) dense = fields.counts("mlp_only_layers");
  set_sparse(config,
             [&](int64_t i) { return (i + 1) % step == 0 && std::ranges::find(dense, i) == dense.end(); });
}

ModelConfig read_qwen2_moe(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 32768, .kv_heads = 16, .windows = true});
  config.qkv_bias = fields.boolean("qkv_bias", true);
  config.experts = read_experts(fields, {.count = 60, .used = 4, .inner = 1408});
  config.experts->route.normalize = fields.boolean("norm_topk_prob", false);
  config.experts->shared_inner = fields.integer("shared_expert_intermediate_size", 5632);
  config.experts->shared_gate = true;
  // Where it does not count, it may be 0.
  if (fields.boolean("use_sliding_window", false)) {
    const int64_t windowed = fields.integer("max_window_layers", 28);
    const auto slides = [&](int64_t i) { return i % 2 == 0 && i < windowed; };
    set_windows(sliding_layers(fields, config.num_layers, slides), read_window(fields, 4096).value_or(0),
                config);
  }
  read_sparse_layers(fields, config);
  return config;
}

ModelConfig read_qwen3_moe(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 32768, .kv_heads = 4, .windows = true});
  read_attention_bias(fields, config);
  config.qk_norm = QkNorm::head;
  config.experts = read_experts(fields, {.count = 128, .used = 8, .inner = 768});
  config.experts->route.normalize = fields.boolean("norm_topk_prob", false);
  const bool windows = fields.boolean("use_sliding_window", false);
  if (const auto window = windows ? read_window(fields, 4096) : std::nullopt) {
    set_windows(std::vector<bool>(static_cast<size_t>(config.num_layers), true), *window, config);
  }
  read_sparse_layers(fields, config);
  return config;
}

void rename_moe(const ModelConfig&, TensorNames& names) {
  name_experts(names, {});
  rename_module(names, Module::shared_gate, "mlp.shared_expert.gate_proj");
  rename_module(names, Module::shared_up, "mlp.shared_expert.up_proj");
  rename_module(names, Module::shared_down, "mlp.shared_expert.down_proj");
}

/// llama.cpp knows by itself whether the chosen experts' weights are renormalized.
nlohmann::json translate_moe(const GgufSettings& settings, const char* model_type, bool normalize) {
  nlohmann::json document = translate_common(settings, model_type, {.whole_head = true, .experts = true});
  translate_experts(settings, document);
  document["norm_topk_prob"] = normalize;
  document["qkv_bias"] = document["attention_bias"];
  return document;
}

nlohmann::json translate_qwen2_moe(const GgufSettings& settings) {
  return translate_moe(settings, "qwen2_moe", false);
}

nlohmann::json translate_qwen3_moe(const GgufSettings& settings) {
  return translate_moe(settings, "qwen3_moe", true);
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
          {"qwen3", read_qwen3, nullptr, "qwen3", translate_qwen3},
          {"qwen2_moe", read_qwen2_moe, rename_moe, "qwen2moe", translate_qwen2_moe},
          {"qwen3_moe", read_qwen3_moe, rename_moe, "qwen3moe", translate_qwen3_moe}};
}

}  // namespace qeval::model
