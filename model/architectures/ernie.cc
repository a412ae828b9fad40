#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

ModelConfig read_ernie(const JsonObject& fields) {
  ModelConfig config = read_common(
      fields,
      {.context = 131072, .kv_heads = 2, .head_dim = 128, .theta = 500000.0, .eps = 1e-5, .tied = true});
  config.qkv_bias = config.o_bias = config.mlp_bias = fields.boolean("use_bias", false);
  return config;
}

void rename_ernie(const ModelConfig&, TensorNames& names) {
  names.interleaved = true;
}

}  // namespace

std::vector<Architecture> ernie_family() {
  return {{"ernie4_5", read_ernie, rename_ernie}};
}

}  // namespace qeval::model
