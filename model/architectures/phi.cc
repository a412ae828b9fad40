#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_phi(const JsonObject& fields) {
  const ConfigDefaults defaults{.context = 2048,
                                .rotary_factor = 0.5,
                                .eps_key = "layer_norm_eps",
                                .eps = 1e-5,
                                .activation = "gelu_new",
                                .reads = {"qk_layernorm"}};
  ModelConfig config = read_common(fields, defaults);
  config.form = BlockForm::parallel;
  config.norm = NormKind::layer;
  config.gated_mlp = false;
  config.qkv_bias = config.o_bias = config.mlp_bias = config.head_bias = true;
  if (fields.boolean("qk_layernorm", false)) {
    config.qk_norm = QkNorm::head;
    config.qk_norm_kind = NormKind::layer;
    config.qk_norm_bias = true;
  }
  return config;
}

void rename_phi(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::o, "self_attn.dense");
  rename_module(names, Module::q_norm, "self_attn.q_layernorm");
  rename_module(names, Module::k_norm, "self_attn.k_layernorm");
  rename_module(names, Module::gate, "mlp.fc1");
  rename_module(names, Module::down, "mlp.fc2");
  names.modules[Module::final_norm].name = "final_layernorm";
}

nlohmann::json translate_phi2(const GgufSettings& settings) {
  return translate_common(settings, "phi", {.eps_key = "layer_norm_eps", .layer_norm = true});
}

}  // namespace

std::vector<Architecture> phi_family() {
  return {{"phi", read_phi, rename_phi, "phi2", translate_phi2}};
}

}  // namespace qeval::model
