#include <cmath>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_granite(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 2048});
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  config.embedding_factor = static_cast<float>(fields.number("embedding_multiplier", 1.0));
  config.residual_factor = static_cast<float>(fields.number("residual_multiplier", 1.0));
  config.attention_scale = static_cast<float>(fields.number("attention_multiplier", 1.0));
  const double divisor = fields.number("logits_scaling", 1.0);
  if (!(divisor > 0)) fields.refuse("logits_scaling", "above 0");
  config.logit_factor = static_cast<float>(1 / divisor);
  return config;
}

/// A factor of 0 is none.
nlohmann::json translate_granite(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "granite", {.whole_head = true});
  const auto factor = [&](const char* key, double none) {
    const double given = settings.number(key, 0.0);
    return given == 0 ? none : given;
  };
  document["mlp_bias"] = settings.has_tensor("blk.0.ffn_down.bias");
  document["embedding_multiplier"] = factor("embedding_scale", 1.0);
  document["residual_multiplier"] = factor("residual_scale", 1.0);
  document["attention_multiplier"] =
      factor("attention.scale", 1 / std::sqrt(document["head_dim"].get<double>()));
  document["logits_scaling"] = settings.number("logit_scale");
  if (!settings.boolean("rope.scaling.finetuned", true)) {
    settings.refuse("rope.scaling.finetuned", "false", "true (layers rotate)");
  }
  return document;
}

}  // namespace

std::vector<Architecture> granite_family() {
  return {{"granite", read_granite, nullptr, "granite", translate_granite, pair_rotary_rows}};
}

}  // namespace qeval::model
