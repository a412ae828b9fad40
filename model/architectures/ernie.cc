#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

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

nlohmann::json translate_ernie(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "ernie4_5", {.whole_head = true});
  document["use_bias"] = document["attention_bias"];
  return document;
}

}  // namespace

std::vector<Architecture> ernie_family() {
  return {{"ernie4_5", read_ernie, rename_ernie, "ernie4_5", translate_ernie, pair_rotary_rows}};
}

}  // namespace qeval::model
