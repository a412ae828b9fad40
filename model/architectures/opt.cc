#include "model/architectures/architecture.h"
#include "model/config_check.h"

namespace qeval::model {
namespace {

ModelConfig read_opt(const JsonObject& fields) {
  ModelConfig config;
  config.vocab_size = fields.integer("vocab_size");
  config.hidden_size = fields.integer("hidden_size");
  config.num_heads = config.num_kv_heads = fields.integer("num_attention_heads");
  config.num_layers = fields.integer("num_hidden_layers");
  config.max_position_embeddings = fields.integer("max_position_embeddings", 2048);
  config.intermediate_size = fields.integer("ffn_dim");
  if (config.num_heads < 1 || config.hidden_size % config.num_heads != 0) {
    fields.refuse("num_attention_heads", "a divisor of hidden_size");
  }
  config.head_dim = config.hidden_size / config.num_heads;
  config.bos_token_id = read_token(fields, "bos_token_id");
  config.eos_token_id = read_token(fields, "eos_token_id");
  check_sizes(config, fields.where());
  const bool before = fields.boolean("do_layer_norm_before", true);
  config.form = before ? BlockForm::pre : BlockForm::after_add;
  config.final_norm = before && !fields.boolean("_remove_final_layer_norm", false);
  config.norm = NormKind::layer;
  config.norm_eps = 1e-5;
  if (!fields.boolean("layer_norm_elementwise_affine", true)) {
    fields.refuse("layer_norm_elementwise_affine", "true");
  }
  config.activation = read_activation(fields, "activation_function", "relu");
  config.gated_mlp = false;
  config.learned_positions = true;
  config.position_offset = 2;
  const int64_t width = fields.integer("word_embed_proj_dim", config.hidden_size);
  if (width != config.hidden_size) config.embedding_size = width;
  config.qkv_bias = config.o_bias = config.mlp_bias = fields.boolean("enable_bias", true);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", true);
  config.layers.resize(static_cast<size_t>(config.num_layers), LayerSettings{.rotary = false});
  return config;
}

void rename_opt(const ModelConfig&, TensorNames& names) {
  names.root = "model.decoder.";
  names.positions = "embed_positions";
  rename_module(names, Module::o, "self_attn.out_proj");
  rename_module(names, Module::input_norm, "self_attn_layer_norm");
  rename_module(names, Module::post_attention_norm, "final_layer_norm");
  rename_module(names, Module::gate, "fc1");
  rename_module(names, Module::down, "fc2");
  names.modules[Module::final_norm].name = "final_layer_norm";
  names.modules[Module::embedding_in].name = "project_in";
  names.modules[Module::embedding_out].name = "project_out";
}

}  // namespace

std::vector<Architecture> opt_family() {
  return {{"opt", read_opt, rename_opt}};
}

}  // namespace qeval::model
