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

/// llama.cpp takes a factor of 0 for none, of scores for the usual one. Only the logits' must be there.
nlohmann::json translate_granite(const GgufSettings& settings) {
  if (!settings.boolean("rope.scaling.finetuned", true)) {
    settings.refuse("rope.scaling.finetuned", "false", "true (a rotary embedding)");
  }
  nlohmann::json document = translate_common(settings, "granite", {.whole_head = true});
  document["mlp_bias"] = settings.has_tensor("blk.0.ffn_down.bias");
  const auto factor = [&](const char* key, double usual) {
    const double value = settings.number(key, 0.0);
    return value == 0 ? usual : value;
  };
  document["embedding_multiplier"] = factor("embedding_scale", 1);
  document["attention_multiplier"] =
      factor("attention.scale", 1 / std::sqrt(document["head_dim"].get<double>()));
  document["residual_multiplier"] = factor("residual_scale", 1);
  document["logits_scaling"] = settings.number("logit_scale");
  return document;
}

}  // namespace

std::vector<Architecture> granite_family() {
  return {{"granite", read_granite, nullptr, "granite", translate_granite, pair_rotary_rows}};
}

}  // namespace qeval::model
