#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_seed_oss(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 524288, .kv_heads = 8, .head_dim = 128});
  config.qkv_bias = fields.boolean("attention_bias", true);
  config.o_bias = fields.boolean("attention_out_bias", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  return config;
}

nlohmann::json translate_seed_oss(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "seed_oss", {.whole_head = true});
  document["attention_out_bias"] = settings.has_tensor("blk.0.attn_output.bias");
  document["mlp_bias"] = settings.has_tensor("blk.0.ffn_down.bias");
  return document;
}

}  // namespace

std::vector<Architecture> seed_oss_family() {
  return {
      {"seed_oss", read_seed_oss, nullptr, "seed_oss", translate_seed_oss, rename_gguf_post_attention_norm}};
}

}  // namespace qeval::model
