#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

ModelConfig read_llama(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 2048});
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  return config;
}

}  // namespace

std::vector<Architecture> llama_family() {
  return {{"llama", read_llama}};
}

}  // namespace qeval::model
