#include <cmath>

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// "dynamic" with an `alpha` is another base and nothing else.
nlohmann::json with_alpha_as_base(const JsonObject& fields, int64_t head_dim) {
  nlohmann::json document = fields.value();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (fields.find(key) == nullptr) continue;
    const JsonObject rope = fields.object(key);
    const bool dynamic = rope.string("rope_type", rope.string("type", "default")) == "dynamic";
    if (!dynamic || rope.find("alpha") == nullptr) continue;
    const double theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0));
    const auto d = static_cast<double>(head_dim);
    const double base = theta * std::pow(rope.number("alpha"), d / (d - 2));
    document[key] = {{"rope_type", "default"}, {"rope_theta", base}};
  }
  return document;
}

ModelConfig read_hunyuan(const JsonObject& fields) {
  const int64_t heads = std::max<int64_t>(1, fields.integer("num_attention_heads"));
  const int64_t head_dim = fields.integer("head_dim", fields.integer("hidden_size") / heads);
  const nlohmann::json document = with_alpha_as_base(fields, head_dim);
  ModelConfig config = read_common(JsonObject(document, fields.where()), {.context = 2048, .eps = 1e-5});
  read_attention_bias(fields, config);
  config.qk_norm = QkNorm::head;
  config.qk_norm_after_rotary = true;
  return config;
}

void rename_hunyuan(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::q_norm, "self_attn.query_layernorm");
  rename_module(names, Module::k_norm, "self_attn.key_layernorm");
}

nlohmann::json translate_hunyuan(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "hunyuan_v1_dense", {.whole_head = true});
  if (const double alpha = settings.number("rope.scaling.alpha", 0.0); alpha > 0) {
    nlohmann::json& theta = document["rope_parameters"]["rope_theta"];
    const auto d = document["head_dim"].get<double>();
    theta = theta.get<double>() * std::pow(alpha, d / (d - 2));
  }
  return document;
}

}  // namespace

std::vector<Architecture> hunyuan_family() {
  return {{"hunyuan_v1_dense", read_hunyuan, rename_hunyuan, "hunyuan-dense", translate_hunyuan}};
}

}  // namespace qeval::model
