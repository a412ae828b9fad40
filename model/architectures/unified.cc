// The unified layout's own settings (docs/specification.md#unified-layout), as the paper's code writes them.

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

using nlohmann::json;

ModelConfig read_unified(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.rotary_factor = 1.0});
  const std::string norm = fields.string("norm_class");
  if (norm != "rmsnorm" && norm != "layernorm") fields.refuse("norm_class", "rmsnorm, layernorm");
  config.norm = norm == "rmsnorm" ? NormKind::rms : NormKind::layer;
  config.norm_eps = fields.number("layer_norm_eps");
  // A LayerNorm has no form without eps.
  config.l2norm_as_rmsnorm = fields.boolean("l2norm_as_rmsnorm", false) && config.norm == NormKind::rms;
  config.scale_embedding = fields.boolean("normalize_embed", false);
  config.qkv_bias = fields.boolean("attention_bias", false);
  config.o_bias = config.qkv_bias && !fields.boolean("use_qkv_bias_only", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  fields.require_false({"shared_attention_norm", "use_megablocks"});
  if (fields.integer("num_linears_per_mlp", 3) != 3) {
    fields.refuse("num_linears_per_mlp", "3 (gate, up and down)");
  }
  for (const char* key : {"num_local_experts", "num_experts_per_tok"}) {
    if (fields.integer(key, 1) > 1) fields.refuse(key, "1 (no mixture of experts)");
  }
  return config;
}

const char* activation_name(Activation activation) {
  switch (activation) {
    case Activation::silu:
      return "silu";
    case Activation::gelu_erf:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_pytorch_tanh";
    case Activation::relu:
      return "relu";
    case Activation::relu2:
      return "relu2";
    case Activation::xielu:
      break;
  }
  return "xielu";
}

json rope_scaling_json(const RopeScaling& scaling) {
  if (scaling.kind == RopeScaling::Kind::linear) {
    return {{"type", "linear"}, {"rope_type", "linear"}, {"factor", scaling.factor}};
  }
  if (scaling.kind == RopeScaling::Kind::llama3) {
    return {{"type", "llama3"},
            {"rope_type", "llama3"},
            {"factor", scaling.factor},
            {"low_freq_factor", scaling.low_freq_factor},
            {"high_freq_factor", scaling.high_freq_factor},
            {"original_max_position_embeddings", scaling.original_max_position_embeddings}};
  }
  return {};
}

}  // namespace

std::vector<Architecture> unified_family() {
  return {{"hfmodel", read_unified}};
}

namespace {

json family_config(const ModelConfig& config, const std::string& torch_dtype) {
  if (!config.source.empty()) {
    json document = json::parse(config.source);
    document[kWeightLayoutKey] = "unified";
    document["l2norm_as_rmsnorm"] = config.l2norm_as_rmsnorm;
    document["tie_word_embeddings"] = config.tie_word_embeddings;
    document.erase("torch_dtype");
    document["dtype"] = torch_dtype;
    return document;
  }
  const auto token = [](std::optional<int32_t> id) { return id ? json(*id) : json(); };
  return {{"architectures", {"HFForCausalLM"}},
          {"model_type", "hfmodel"},
          {"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"intermediate_size", config.intermediate_size},
          {"num_hidden_layers", config.num_layers},
          {"num_attention_heads", config.num_heads},
          {"num_key_value_heads", config.num_kv_heads},
          {"head_dim", config.head_dim},
          {"partial_rotary_factor", rotary_share(config.rotary.dim, config.head_dim)},
          {"max_position_embeddings", config.max_position_embeddings},
          {"rope_theta", config.rotary.theta},
          {"rope_scaling", rope_scaling_json(config.rotary.scaling)},
          {"norm_class", config.norm == NormKind::rms ? "rmsnorm" : "layernorm"},
          {"layer_norm_eps", config.norm_eps},
          {"l2norm_as_rmsnorm", config.l2norm_as_rmsnorm},
          {"hidden_act", activation_name(config.activation)},
          {"normalize_embed", config.scale_embedding},
          {"attention_bias", config.qkv_bias},
          {"use_qkv_bias_only", config.qkv_bias && !config.o_bias},
          {"mlp_bias", config.mlp_bias},
          {"num_linears_per_mlp", 3},
          {"shared_attention_norm", false},
          {"parallel_residual", false},
          {"qk_layernorm", false},
          {"num_local_experts", 1},
          {"num_experts_per_tok", 1},
          {"sliding_window", nullptr},
          {"use_matmul_as_module", true},
          {"tie_word_embeddings", config.tie_word_embeddings},
          {"bos_token_id", token(config.bos_token_id)},
          {"eos_token_id", token(config.eos_token_id)},
          {"torch_dtype", torch_dtype}};
}

}  // namespace

json unified_config(const ModelConfig& config, const std::string& torch_dtype) {
  json document = family_config(config, torch_dtype);
  if (const std::optional<Rotation>& rotation = config.rotation) {
    document[kRotationKey] = {{"residual", rotation->residual},
                              {"values", rotation->values},
                              {"down_block", rotation->down_block},
                              {"query_key_block", rotation->query_key_block},
                              {"seed", rotation->seed}};
  }
  return document;
}

}  // namespace qeval::model
