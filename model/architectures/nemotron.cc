#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_nemotron(const JsonObject& fields) {
  const ConfigDefaults defaults{
      .context = 4096, .rotary_factor = 0.5, .eps_key = "norm_eps", .eps = 1e-5, .activation = "relu2"};
  ModelConfig config = read_common(fields, defaults);
  config.norm = NormKind::layer;
  config.norm_weight_plus_one = true;
  config.gated_mlp = false;
  read_attention_bias(fields, config);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  return config;
}

void rename_nemotron(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::gate, "mlp.up_proj");
}

/// The norms have their 1 already.
nlohmann::json translate_nemotron(const GgufSettings& settings) {
  nlohmann::json document =
      translate_common(settings, "nemotron", {.eps_key = "norm_eps", .layer_norm = true});
  document["mlp_bias"] = settings.has_tensor("blk.0.ffn_down.bias");
  return document;
}

}  // namespace

std::vector<Architecture> nemotron_family() {
  return {{"nemotron", read_nemotron, rename_nemotron, "nemotron", translate_nemotron}};
}

}  // namespace qeval::model
