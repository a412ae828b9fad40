#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Says that experts are routed by a plain softmax, as llama.cpp does.
constexpr const char* kPlainRouterKey = "qeval_plain_router";

/// Phi-3.5-MoE: LayerNorms, and two experts that are chosen one after the other.
ModelConfig read_phimoe(const JsonObject& fields) {
  ModelConfig config =
      read_common(fields, {.context = 131072, .kv_heads = 8, .theta = 1e6, .eps = 1e-5, .windows = true});
  if (const auto window = read_window(fields, std::nullopt)) {
    set_windows(std::vector<bool>(static_cast<size_t>(config.num_layers), true), *window, config);
  }
  config.norm = NormKind::layer;
  read_attention_bias(fields, config);
  config.head_bias = fields.boolean("lm_head_bias", false);
  // Cosines and sines have factors of their own; the frequencies are those of short sequences at any length,
  // as transformers computes them (docs/decisions.md).
  const char* key = fields.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  if (config.rotary.scaling.kind != RopeScaling::Kind::none && fields.find(key) != nullptr) {
    const JsonObject rope = fields.object(key);
    config.rotary.scaling.attention_factor = rope.number("short_mscale");
    config.rotary.scaling.long_attention_factor = rope.number("long_mscale");
    config.rotary.scaling.long_factors = config.rotary.scaling.short_factors;
  }
  config.experts = read_experts(fields, {.count = 16, .used = 2, .inner_key = "intermediate_size"});
  RouteOp& route = config.experts->route;
  if (fields.boolean(kPlainRouterKey, false)) {
    route.normalize = true;
  } else {
    route.scores = RouteOp::Scores::sparse_mixer;
    route.jitter = static_cast<float>(fields.number("router_jitter_noise", 0.01));
    if (route.used != 2) fields.refuse("num_experts_per_tok", "2");
  }
  set_sparse(config, [](int64_t) { return true; });
  return config;
}

void rename_phimoe(const ModelConfig&, TensorNames& names) {
  name_experts(names, {.block = "block_sparse_moe", .gate = "w1", .up = "w3", .down = "w2"});
}

nlohmann::json translate_phimoe(const GgufSettings& settings) {
  nlohmann::json document =
      translate_common(settings, "phimoe", {.windows = GgufForm::Windows::known, .experts = true});
  translate_experts(settings, document);
  document["intermediate_size"] = document["moe_intermediate_size"];
  document["lm_head_bias"] = settings.has_tensor("output.bias");
  document[kPlainRouterKey] = true;
  nlohmann::json& rope = document["rope_parameters"];
  if (rope.contains("attention_factor")) {
    rope["short_mscale"] = rope["long_mscale"] = rope["attention_factor"];
  }
  return document;
}

}  // namespace

std::vector<Architecture> phimoe_family() {
  return {{"phimoe", read_phimoe, rename_phimoe, "phimoe", translate_phimoe}};
}

}  // namespace qeval::model
