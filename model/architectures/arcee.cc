#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// A Llama whose MLP has no gate.
ModelConfig read_arcee(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 4096, .eps = 1e-5, .activation = "relu2"});
  config.gated_mlp = false;
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  return config;
}

void rename_arcee(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::gate, "mlp.up_proj");
}

/// llama.cpp has no biases of the MLP: tensors of them are left unread, and so refused.
nlohmann::json translate_arcee(const GgufSettings& settings) {
  return translate_common(settings, "arcee", {.whole_head = true});
}

}  // namespace

std::vector<Architecture> arcee_family() {
  return {{"arcee", read_arcee, rename_arcee, "arcee", translate_arcee, pair_rotary_rows}};
}

}  // namespace qeval::model
