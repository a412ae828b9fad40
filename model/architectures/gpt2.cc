#include <cmath>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"
#include "model/config_check.h"

namespace qeval::model {
namespace {

ModelConfig read_gpt2(const JsonObject& fields) {
  ModelConfig config;
  config.vocab_size = fields.integer("vocab_size");
  config.hidden_size = fields.integer("n_embd", 768);
  config.num_heads = config.num_kv_heads = fields.integer("n_head", 12);
  config.num_layers = fields.integer("n_layer", 12);
  config.max_position_embeddings = fields.integer("n_positions", 1024);
  config.intermediate_size = fields.integer("n_inner", 4 * config.hidden_size);
  if (config.num_heads < 1 || config.hidden_size % config.num_heads != 0) {
    fields.refuse("n_head", "a divisor of n_embd");
  }
  config.head_dim = config.hidden_size / config.num_heads;
  config.bos_token_id = read_token(fields, "bos_token_id");
  config.eos_token_id = read_token(fields, "eos_token_id");
  check_sizes(config, fields.where());
  fields.require_false({"add_cross_attention"});
  config.norm = NormKind::layer;
  config.norm_eps = fields.number("layer_norm_epsilon", 1e-5);
  config.activation = read_activation(fields, "activation_function", "gelu_new");
  config.gated_mlp = false;
  config.learned_positions = true;
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", true);
  config.layers.resize(static_cast<size_t>(config.num_layers));
  const double usual =
      fields.boolean("scale_attn_weights", true) ? 1 / std::sqrt(static_cast<double>(config.head_dim)) : 1;
  const bool by_layer = fields.boolean("scale_attn_by_inverse_layer_idx", false);
  for (size_t i = 0; i < config.layers.size(); ++i) {
    config.layers[i].rotary = false;
    config.layers[i].attention_scale =
        static_cast<float>(by_layer ? usual / static_cast<double>(i + 1) : usual);
  }
  return config;
}

void rename_gpt2(const ModelConfig& config, TensorNames& names) {
  names.root = "transformer.";
  names.embedding = "wte";
  names.positions = "wpe";
  names.ignored_suffixes = {".attn.bias", ".attn.masked_bias"};
  fuse_qkv(config, "attn.c_attn", names, true);
  for (const auto& [module, name] :
       {std::pair{Module::o, "attn.c_proj"}, {Module::gate, "mlp.c_fc"}, {Module::down, "mlp.c_proj"}}) {
    rename_module(names, module, name);
    names.modules[module].transposed = true;
  }
  rename_module(names, Module::input_norm, "ln_1");
  rename_module(names, Module::post_attention_norm, "ln_2");
  for (auto& [module, place] : names.modules) {
    if (place.name.starts_with("layers.")) place.name = "h." + place.name.substr(7);
  }
  names.modules[Module::final_norm].name = "ln_f";
}

nlohmann::json translate_gpt2(const GgufSettings& settings) {
  const GgufForm form{.eps_key = "layer_norm_epsilon", .layer_norm = true};
  nlohmann::json document = translate_common(settings, "gpt2", form);
  for (const auto& [usual, own] : {std::pair{"hidden_size", "n_embd"},
                                   {"num_attention_heads", "n_head"},
                                   {"num_hidden_layers", "n_layer"},
                                   {"max_position_embeddings", "n_positions"},
                                   {"intermediate_size", "n_inner"}}) {
    document[own] = document[usual];
    document.erase(usual);
  }
  return document;
}

}  // namespace

std::vector<Architecture> gpt2_family() {
  return {{"gpt2", read_gpt2, rename_gpt2, "gpt2", translate_gpt2}};
}

}  // namespace qeval::model
