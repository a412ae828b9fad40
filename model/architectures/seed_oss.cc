#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

ModelConfig read_seed_oss(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 524288, .kv_heads = 8, .head_dim = 128});
  config.qkv_bias = fields.boolean("attention_bias", true);
  config.o_bias = fields.boolean("attention_out_bias", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  return config;
}

}  // namespace

std::vector<Architecture> seed_oss_family() {
  return {{"seed_oss", read_seed_oss}};
}

}  // namespace qeval::model
