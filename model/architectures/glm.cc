#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

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

nlohmann::json translate_chatglm(const GgufSettings& settings) {
  return translate_common(settings, "glm");
}

nlohmann::json translate_glm4(const GgufSettings& settings) {
  return translate_common(settings, "glm4");
}

void rename_gguf_glm(const GgufFile& file, const ModelConfig& config, TensorNames& names) {
  // In the text part of a model for images (sections of rotary channels), the converter has undone the pairs.
  const std::vector<int64_t>* sections = file.find_integers("glm4.rope.dimension_sections");
  const bool halves =
      sections != nullptr && sections->size() >= 2 && sections->at(0) > 0 && sections->at(1) > 0;
  names.interleaved = !halves;
  fuse_gguf_gate_up(file, config, names);
}

}  // namespace

std::vector<Architecture> glm_family() {
  return {{"glm", read_glm, rename_glm, "chatglm", translate_chatglm, rename_gguf_glm},
          {"glm4", read_glm4, rename_glm, "glm4", translate_glm4, rename_gguf_glm}};
}

}  // namespace qeval::model
