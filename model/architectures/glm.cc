#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

constexpr ConfigDefaults kDefaults{
    .context = 131072, .kv_heads = 2, .head_dim = 128, .rotary_factor = 0.5, .eps = 1.5625e-7};

ModelConfig read_glm(const JsonObject& fields) {
  ModelConfig config = read_common(fields, kDefaults);
  config.qkv_bias = fields.boolean("attention_bias", true);
  return config;
}

ModelConfig read_glm4(const JsonObject& fields) {
  ModelConfig config = read_glm(fields);
  config.form = BlockForm::glm_sandwich;
  return config;
}

void rename_glm(const ModelConfig& config, TensorNames& names) {
  names.interleaved = true;
  fuse_gate_up(config, "mlp.gate_up_proj", names);
}

}  // namespace

std::vector<Architecture> glm_family() {
  return {{"glm", read_glm, rename_glm}, {"glm4", read_glm4, rename_glm}};
}

}  // namespace qeval::model
