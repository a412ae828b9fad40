#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Rotary settings have names of their own in older files.
nlohmann::json with_usual_names(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  for (const auto& [old_name, name] :
       {std::pair{"rotary_pct", "partial_rotary_factor"}, {"rotary_emb_base", "rope_theta"}}) {
    if (fields.find(old_name) != nullptr && fields.find(name) == nullptr) document[name] = document[old_name];
  }
  return document;
}

ModelConfig read_gpt_neox(const JsonObject& fields) {
  const nlohmann::json document = with_usual_names(fields);
  const ConfigDefaults defaults{.context = 2048,
                                .rotary_factor = 0.25,
                                .eps_key = "layer_norm_eps",
                                .eps = 1e-5,
                                .activation = "gelu",
                                .reads = {"use_parallel_residual"}};
  ModelConfig config = read_common(JsonObject(document, fields.where()), defaults);
  config.form =
      fields.boolean("use_parallel_residual", true) ? BlockForm::parallel_two_norms : BlockForm::pre;
  config.norm = NormKind::layer;
  config.gated_mlp = false;
  config.mlp_bias = true;
  read_attention_bias(fields, config, true);
  return config;
}

void rename_gpt_neox(const ModelConfig& config, TensorNames& names) {
  names.root = "gpt_neox.";
  names.embedding = "embed_in";
  names.head = "embed_out";
  names.ignored_suffixes = {".attention.bias", ".attention.masked_bias"};
  const int64_t d = config.head_dim;
  int64_t first = 0;
  for (const Module module : {Module::q, Module::k, Module::v}) {  // per head q, k, v
    names.modules[module] = {.name = "layers.{}.attention.query_key_value",
                             .first_row = first,
                             .rows = 3 * config.num_heads * d,
                             .block_rows = d,
                             .block_stride = 3 * d};
    first += d;
  }
  rename_module(names, Module::o, "attention.dense");
  rename_module(names, Module::gate, "mlp.dense_h_to_4h");
  rename_module(names, Module::down, "mlp.dense_4h_to_h");
  names.modules[Module::final_norm].name = "final_layer_norm";
}

/// The converter puts q, k and v one behind the other; llama.cpp has GELU's tanh form only.
nlohmann::json translate_gpt_neox(const GgufSettings& settings) {
  const GgufForm form{.eps_key = "layer_norm_eps", .layer_norm = true, .parallel = true};
  nlohmann::json document = translate_common(settings, "gpt_neox", form);
  document["use_parallel_residual"] = settings.boolean("use_parallel_residual", true);
  document["hidden_act"] = "gelu_pytorch_tanh";
  return document;
}

}  // namespace

std::vector<Architecture> gpt_neox_family() {
  return {{"gpt_neox", read_gpt_neox, rename_gpt_neox, "gptneox", translate_gpt_neox}};
}

}  // namespace qeval::model
