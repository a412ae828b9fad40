#include "base/error.h"
#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

/// A Llama that rotates neighbouring channels; attention_bias is of q, k and v only.
ModelConfig read_helium(const JsonObject& fields) {
  ModelConfig config =
      read_common(fields, {.context = 4096, .kv_heads = 20, .head_dim = 128, .theta = 100000.0, .eps = 1e-8});
  if (config.num_heads * config.head_dim != config.hidden_size) {
    fields.refuse("hidden_size",
                  fmt::format("num_attention_heads · head_dim, {}", config.num_heads * config.head_dim));
  }
  config.qkv_bias = fields.boolean("attention_bias", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  return config;
}

void rename_helium(const ModelConfig&, TensorNames& names) {
  names.interleaved = true;
}

}  // namespace

std::vector<Architecture> helium_family() {
  return {{"helium", read_helium, rename_helium}};
}

}  // namespace qeval::model
