#include "base/error.h"
#include "model/architectures/architecture.h"

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

}  // namespace

std::vector<Architecture> granite_family() {
  return {{"granite", read_granite}};
}

}  // namespace qeval::model
