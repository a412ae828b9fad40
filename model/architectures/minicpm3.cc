#include <cmath>

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Says an eps for the latent norms, which have 1e-6 in transformers whatever the configuration says.
constexpr const char* kLatentEpsKey = "qeval_latent_norm_eps";

/// Latent attention: queries, keys and values come from low-rank projections, and one rotated part of the
/// keys serves all heads.
ModelConfig read_minicpm3(const JsonObject& fields) {
  LatentAttention latent;
  latent.q_rank = fields.integer("q_lora_rank", 768);
  latent.kv_rank = fields.integer("kv_lora_rank", 256);
  latent.nope = fields.integer("qk_nope_head_dim", 64);
  latent.rope = fields.integer("qk_rope_head_dim", 32);
  latent.value_dim = fields.integer("v_head_dim", 64);
  latent.eps = fields.number(kLatentEpsKey, latent.eps);
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

/// The three factors are those of the published model, in llama.cpp without a word of the file; the latent
/// norms have the eps of all others there.
nlohmann::json translate_minicpm3(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "minicpm3", {.latent = true});
  const auto head_dim = document["head_dim"].get<int64_t>();
  const int64_t rope = settings.integer("rope.dimension_count", head_dim);
  const int64_t usual = settings.integer("embedding_length") / settings.integer("attention.head_count");
  document["q_lora_rank"] = settings.integer("attention.q_lora_rank");
  document["kv_lora_rank"] = settings.integer("attention.kv_lora_rank");
  document["qk_nope_head_dim"] = head_dim - rope;
  document["qk_rope_head_dim"] = rope;
  document["v_head_dim"] = settings.integer("attention.value_length", usual);
  document["scale_emb"] = 12.0;
  document["scale_depth"] = 1.4;
  document["dim_model_base"] = 256.0;
  document[kLatentEpsKey] = document["rms_norm_eps"];
  return document;
}

}  // namespace

std::vector<Architecture> minicpm3_family() {
  return {{"minicpm3", read_minicpm3, rename_minicpm3, "minicpm3", translate_minicpm3}};
}

}  // namespace qeval::model
