#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_stablelm(const JsonObject& fields) {
  const ConfigDefaults defaults{.context = 4096,
                                .rotary_factor = 0.25,
                                .eps_key = "layer_norm_eps",
                                .eps = 1e-5,
                                .reads = {"use_parallel_residual", "qk_layernorm"}};
  ModelConfig config = read_common(fields, defaults);
  config.norm = NormKind::layer;
  config.qkv_bias = fields.boolean("use_qkv_bias", false);
  if (fields.boolean("use_parallel_residual", false)) config.form = BlockForm::parallel;
  if (fields.boolean("qk_layernorm", false)) {
    config.qk_norm = QkNorm::head_own;
    config.qk_norm_kind = NormKind::layer;
  }
  return config;
}

void rename_stablelm(const ModelConfig&, TensorNames& names) {
  for (const auto& [module, name] : {std::pair{Module::q_norm, "self_attn.q_layernorm.norms.{}"},
                                     {Module::k_norm, "self_attn.k_layernorm.norms.{}"}}) {
    rename_module(names, module, name);
    names.modules[module].per_head = true;
  }
}

/// The block is parallel where it lacks its second norm: what use_parallel_residual says is not to be
/// trusted.
nlohmann::json translate_stablelm(const GgufSettings& settings) {
  const GgufForm form{.eps_key = "layer_norm_eps", .layer_norm = true, .parallel = true};
  nlohmann::json document = translate_common(settings, "stablelm", form);
  document["use_qkv_bias"] = document["attention_bias"];
  document["use_parallel_residual"] = !settings.has_tensor("blk.0.ffn_norm.weight");
  document["qk_layernorm"] = settings.has_tensor("blk.0.attn_q_norm.weight");
  return document;
}

}  // namespace

std::vector<Architecture> stablelm_family() {
  return {{"stablelm", read_stablelm, rename_stablelm, "stablelm", translate_stablelm}};
}

}  // namespace qeval::model
