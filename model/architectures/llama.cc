#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_llama(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 2048});
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  return config;
}

nlohmann::json translate_llama(const GgufSettings& settings) {
  if (settings.integer("expert_count", 0) > 0) {
    nlohmann::json document = translate_common(settings, "mixtral", {.whole_head = true, .experts = true});
    translate_experts(settings, document);
    document["intermediate_size"] = document["moe_intermediate_size"];
    return document;
  }
  nlohmann::json document = translate_common(settings, "llama", {.whole_head = true});
  document["mlp_bias"] = settings.has_tensor("blk.0.ffn_down.bias");
  return document;
}

}  // namespace

std::vector<Architecture> llama_family() {
  return {{"llama", read_llama, nullptr, "llama", translate_llama, pair_rotary_rows}};
}

}  // namespace qeval::model
