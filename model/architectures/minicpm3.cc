#include <cmath>

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

/// Latent attention: queries, keys and values come from low-rank projections, and one rotated part of the
/// keys serves all heads.
ModelConfig read_minicpm3(const JsonObject& fields) {
  LatentAttention latent;
  latent.q_rank = fields.integer("q_lora_rank", 768);
  latent.kv_rank = fields.integer("kv_lora_rank", 256);
  latent.nope = fields.integer("qk_nope_head_dim", 64);
  latent.rope = fields.integer("qk_rope_head_dim", 32);
  latent.value_dim = fields.integer("v_head_dim", 64);
  for (const auto& [key, value] : {std::pair{"q_lora_rank", latent.q_rank},
                                   {"kv_lora_rank", latent.kv_rank},
                                   {"qk_nope_head_dim", latent.nope},
                                   {"qk_rope_head_dim", latent.rope},
                                   {"v_head_dim", latent.value_dim}}) {
    if (value < 1 || value > 65536) fields.refuse(key, "1 to 65536");
  }
  nlohmann::json document = fields.value();
  document["head_dim"] = latent.rope;  // what rotates
  document["num_key_value_heads"] = nullptr;
  const ConfigDefaults defaults{.context = 32768, .eps = 1e-5, .tied = true};
  ModelConfig config = read_common(JsonObject(document, fields.where()), defaults);
  config.latent = latent;
  config.head_dim = latent.nope + latent.rope;
  config.qkv_bias = config.o_bias = fields.boolean("attention_bias", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  config.embedding_factor = static_cast<float>(fields.number("scale_emb", 1.0));
  config.residual_factor = static_cast<float>(fields.number("scale_depth", 1.0) /
                                              std::sqrt(static_cast<double>(config.num_layers)));
  const double base = fields.number("dim_model_base", 1.0);
  config.logit_factor = static_cast<float>(base / static_cast<double>(config.hidden_size));
  return config;
}

void rename_minicpm3(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::q, "self_attn.q_b_proj");
}

}  // namespace

std::vector<Architecture> minicpm3_family() {
  return {{"minicpm3", read_minicpm3, rename_minicpm3}};
}

}  // namespace qeval::model
