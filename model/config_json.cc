// `config.json` of Hugging Face (llama, gemma, stablelm) and unified (hfmodel) folders. Keys that change what
// the model computes are read or refused; the rest (dropout, library versions, training settings) is ignored.
// Sizes must be there (num_key_value_heads may be left out where it is the number of heads); where another
// key is absent, the default is that of the architecture's configuration class in transformers. A model that
// sees pictures, too, has a text_config for the part that is read here.

#include <cmath>
#include <initializer_list>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/config.h"
#include "model/config_check.h"

namespace qeval::model {
namespace {

using nlohmann::json;

/// Typed access to one JSON object. null counts as absent, as it does in Python's configuration classes.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("{} is not a JSON object", where_);
  }

  const std::string& where() const { return where_; }
  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  [[noreturn]] void refuse(const char* key, std::string_view accepted) const {
    const json* value = find(key);
    fail("{}: {} is {}; accepted: {}", where_, key, value ? printable(value->dump(), 60) : "missing",
         accepted);
  }

  int64_t integer(const char* key, std::optional<int64_t> fallback = std::nullopt) const {
    const json* value = find(key);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_number_integer() || !fits(*value)) refuse(key, "an integer");
    return value->get<int64_t>();
  }

  double number(const char* key, std::optional<double> fallback = std::nullopt) const {
    const json* value = find(key);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_number()) refuse(key, "a number");
    return value->get<double>();
  }

  bool boolean(const char* key, bool fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) refuse(key, "true and false");
    return value->get<bool>();
  }

  std::string string(const char* key, std::optional<std::string> fallback = std::nullopt) const {
    const json* value = find(key);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_string()) refuse(key, "a string");
    return value->get<std::string>();
  }

  /// Refuses anything but false (or absent).
  void require_false(std::initializer_list<const char*> keys) const {
    for (const char* key : keys) {
      if (boolean(key, false)) refuse(key, "false");
    }
  }
  void require_absent(std::initializer_list<const char*> keys) const {
    for (const char* key : keys) {
      if (find(key) != nullptr) refuse(key, "null");
    }
  }

  /// A token id, or the first one of a list; -1 is how some say that there is none.
  std::optional<int32_t> token(const char* key) const {
    const json* value = find(key);
    if (value != nullptr && value->is_array()) value = value->empty() ? nullptr : &value->front();
    if (value == nullptr || *value == -1) return std::nullopt;
    if (!value->is_number_integer() || !fits(*value) || value->get<int64_t>() < 0 ||
        value->get<int64_t>() > INT32_MAX) {
      refuse(key, "a token id or a list of them, or -1 or null for none");
    }
    return value->get<int32_t>();
  }

 private:
  static bool fits(const json& value) {
    return !value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
  }

  const json& object_;
  std::string where_;
};

Activation read_activation(const Fields& fields, const char* key, const char* fallback) {
  const std::string name = fields.string(key, fallback);
  // Functions of transformers that differ in nothing but the name, or in the order of their operations.
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu" || name == "gelu_python") return Activation::gelu_erf;
  for (const char* tanh_form : {"gelu_pytorch_tanh", "gelu_new", "gelu_fast"}) {
    if (name == tanh_form) return Activation::gelu_tanh;
  }
  fields.refuse(key, "silu, gelu, gelu_pytorch_tanh, and transformers' other names for them");
}

/// `trained_length`: original_max_position_embeddings where the object has none.
RopeScaling read_rope_scaling(const Fields& fields, double trained_length) {
  // "type" is the older spelling of "rope_type".
  const char* key =
      fields.find("rope_type") == nullptr && fields.find("type") != nullptr ? "type" : "rope_type";
  const std::string type = fields.string(key, "default");
  RopeScaling scaling;
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
    scaling.factor = fields.number("factor");
  } else if (type == "llama3") {
    scaling.kind = RopeScaling::Kind::llama3;
    scaling.factor = fields.number("factor");
    scaling.low_freq_factor = fields.number("low_freq_factor");
    scaling.high_freq_factor = fields.number("high_freq_factor");
    scaling.original_max_position_embeddings =
        fields.number("original_max_position_embeddings", trained_length);
  } else if (type != "default") {
    fields.refuse(key, "default, linear, llama3");
  }
  return scaling;
}

/// Rotary settings in the newer spelling (everything in `rope_parameters`) or the older one (`rope_theta` and
/// `partial_rotary_factor` at the top, `rope_scaling` beside them). Needs head_dim.
void read_rope(const Fields& fields, double default_rotary_factor, ModelConfig& config) {
  check_sizes(config, fields.where());  // before anything is derived from head_dim
  config.rope_theta = fields.number("rope_theta", 10000.0);
  double rotary_factor = fields.number("partial_rotary_factor", default_rotary_factor);
  const json* parameters = fields.find("rope_parameters");
  if (parameters != nullptr && fields.find("rope_scaling") != nullptr &&
      *parameters != *fields.find("rope_scaling")) {
    fields.refuse("rope_scaling", "null where rope_parameters is given");
  }
  const char* key = parameters == nullptr ? "rope_scaling" : "rope_parameters";
  if (fields.find(key) != nullptr) {
    const Fields rope(*fields.find(key), fields.where() + ": " + key);
    if (rope.find("full_attention") != nullptr)
      rope.refuse("full_attention", "one set of values for all layers");
    config.rope_theta = rope.number("rope_theta", config.rope_theta);
    rotary_factor = rope.number("partial_rotary_factor", rotary_factor);
    config.rope_scaling = read_rope_scaling(rope, static_cast<double>(config.max_position_embeddings));
    if (config.rope_scaling.kind == RopeScaling::Kind::llama3) {  // the outer spelling wins in transformers
      double& trained_length = config.rope_scaling.original_max_position_embeddings;
      trained_length = fields.number("original_max_position_embeddings", trained_length);
    }
  }
  if (!(rotary_factor > 0 && rotary_factor <= 1)) {
    fail("{}: partial_rotary_factor is {}; accepted: above 0, at most 1", fields.where(), rotary_factor);
  }
  // Truncated, as Python's int() does.
  config.rotary_dim = static_cast<int64_t>(static_cast<double>(config.head_dim) * rotary_factor);
}

/// The fields that all layouts spell alike. `default_context`: max_position_embeddings where it is absent.
ModelConfig read_common(const Fields& fields, std::string architecture,
                        std::optional<int64_t> default_context = std::nullopt) {
  ModelConfig config;
  config.architecture = std::move(architecture);
  config.vocab_size = fields.integer("vocab_size");
  config.hidden_size = fields.integer("hidden_size");
  config.intermediate_size = fields.integer("intermediate_size");
  config.num_layers = fields.integer("num_hidden_layers");
  config.num_heads = fields.integer("num_attention_heads");
  config.num_kv_heads = fields.integer("num_key_value_heads", config.num_heads);
  config.max_position_embeddings = fields.integer("max_position_embeddings", default_context);
  config.bos_token_id = fields.token("bos_token_id");
  config.eos_token_id = fields.token("eos_token_id");

  fields.require_absent({"quantization_config"});
  fields.require_false({"parallel_residual", "use_parallel_residual", "qk_layernorm", "use_qk_norm",
                        "use_bidirectional_attention"});
  if (fields.find("sliding_window") != nullptr && fields.boolean("use_sliding_window", true)) {
    fields.refuse("sliding_window", "null");
  }
  for (const char* key : {"num_local_experts", "num_experts", "num_experts_per_tok"}) {
    if (fields.integer(key, 1) > 1) fields.refuse(key, "1 (no mixture of experts)");
  }
  if (const json* types = fields.find("layer_types"); types != nullptr) {
    for (const json& type : *types) {
      if (type != "full_attention") fields.refuse("layer_types", "full_attention in every layer");
    }
  }
  return config;
}

int64_t read_head_dim(const Fields& fields, const ModelConfig& config) {
  if (fields.find("head_dim") != nullptr) return fields.integer("head_dim");
  if (config.num_heads < 1 || config.hidden_size % config.num_heads != 0) {
    fields.refuse("num_attention_heads", "a divisor of hidden_size where head_dim is not given");
  }
  return config.hidden_size / config.num_heads;
}

ModelConfig read_llama(const Fields& fields) {
  ModelConfig config = read_common(fields, "llama", 2048);
  config.head_dim = read_head_dim(fields, config);
  read_rope(fields, 1.0, config);
  config.norm_eps = fields.number("rms_norm_eps", 1e-6);
  config.activation = read_activation(fields, "hidden_act", "silu");
  config.qkv_bias = config.o_bias = fields.boolean("attention_bias", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  return config;
}

/// Gemma's activation: early files say `hidden_act: gelu`, the erf form, although the model was trained with
/// the tanh form; `hidden_activation` was added to override it. So the latter counts where it is set, else
/// `hidden_act` as it stands (docs/decisions.md: releases of transformers differ in this).
ModelConfig read_gemma(const Fields& fields) {
  ModelConfig config = read_common(fields, "gemma", 8192);
  config.head_dim = fields.integer("head_dim", 256);
  read_rope(fields, 1.0, config);
  config.norm_eps = fields.number("rms_norm_eps", 1e-6);
  config.norm_weight_plus_one = true;
  const bool overridden = fields.find("hidden_activation") != nullptr;
  config.activation =
      read_activation(fields, overridden ? "hidden_activation" : "hidden_act", "gelu_pytorch_tanh");
  config.scale_embedding = true;
  config.qkv_bias = config.o_bias = fields.boolean("attention_bias", false);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", true);
  return config;
}

ModelConfig read_stablelm(const Fields& fields) {
  ModelConfig config = read_common(fields, "stablelm", 4096);
  config.head_dim = read_head_dim(fields, config);
  read_rope(fields, 0.25, config);
  config.norm = NormKind::layer;
  config.norm_eps = fields.number("layer_norm_eps", 1e-5);
  config.activation = read_activation(fields, "hidden_act", "silu");
  config.qkv_bias = fields.boolean("use_qkv_bias", false);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  return config;
}

ModelConfig read_unified(const Fields& fields) {
  ModelConfig config = read_common(fields, "hfmodel");
  config.head_dim = read_head_dim(fields, config);
  read_rope(fields, 1.0, config);
  const std::string norm = fields.string("norm_class");
  if (norm != "rmsnorm" && norm != "layernorm") fields.refuse("norm_class", "rmsnorm, layernorm");
  config.norm = norm == "rmsnorm" ? NormKind::rms : NormKind::layer;
  config.norm_eps = fields.number("layer_norm_eps");
  // A LayerNorm has no form without eps.
  config.l2norm_as_rmsnorm = fields.boolean("l2norm_as_rmsnorm", false) && config.norm == NormKind::rms;
  config.activation = read_activation(fields, "hidden_act", "silu");
  config.scale_embedding = fields.boolean("normalize_embed", false);
  config.qkv_bias = fields.boolean("attention_bias", false);
  config.o_bias = config.qkv_bias && !fields.boolean("use_qkv_bias_only", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  fields.require_false({"shared_attention_norm", "use_megablocks"});
  if (fields.integer("num_linears_per_mlp", 3) != 3) {
    fields.refuse("num_linears_per_mlp", "3 (gate, up and down)");
  }
  return config;
}

/// The text model's object of a nested configuration, with what only the outer one says of it.
json text_config(const Fields& outer, json document) {
  json text = std::move(document["text_config"]);
  Fields(text, outer.where() + ": text_config");  // an object
  for (const char* key : {"tie_word_embeddings", "quantization_config", "bos_token_id", "eos_token_id"}) {
    if (const auto own = text.find(key);
        (own == text.end() || own->is_null()) && outer.find(key) != nullptr) {
      text[key] = *outer.find(key);
    }
  }
  return text;
}

}  // namespace

ModelConfig read_config(const std::filesystem::path& config_json) {
  json document = parse_strict_json(read_file(config_json), config_json.string());
  std::string where = config_json.string();
  if (const Fields outer(document, where); outer.find("text_config") != nullptr) {
    document = text_config(outer, document);
    where += ": text_config";
  }
  const Fields fields(document, where);
  const std::string type = fields.string("model_type");
  ModelConfig config;
  if (type == "llama") {
    config = read_llama(fields);
  } else if (type == "gemma") {
    config = read_gemma(fields);
  } else if (type == "stablelm") {
    config = read_stablelm(fields);
  } else if (type == "hfmodel") {
    config = read_unified(fields);
  } else {
    fields.refuse("model_type", "llama, gemma, stablelm, hfmodel");
  }
  const bool whole_head = type == "llama" || type == "gemma";
  if (whole_head && config.rotary_dim != config.head_dim) {
    fail("{}: partial_rotary_factor is not 1; accepted for {}: 1", fields.where(), type);
  }
  check_config(config, fields.where());
  return config;
}

json unified_config(const ModelConfig& config, const std::string& torch_dtype) {
  const auto activation_name = [&] {
    switch (config.activation) {
      case Activation::silu:
        return "silu";
      case Activation::gelu_erf:
        return "gelu";
      case Activation::gelu_tanh:
        break;
    }
    return "gelu_pytorch_tanh";
  };
  json rope_scaling;
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::linear) {
    rope_scaling = {{"type", "linear"}, {"rope_type", "linear"}, {"factor", scaling.factor}};
  } else if (scaling.kind == RopeScaling::Kind::llama3) {
    rope_scaling = {{"type", "llama3"},
                    {"rope_type", "llama3"},
                    {"factor", scaling.factor},
                    {"low_freq_factor", scaling.low_freq_factor},
                    {"high_freq_factor", scaling.high_freq_factor},
                    {"original_max_position_embeddings", scaling.original_max_position_embeddings}};
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
          {"partial_rotary_factor",
           static_cast<double>(config.rotary_dim) / static_cast<double>(config.head_dim)},
          {"max_position_embeddings", config.max_position_embeddings},
          {"rope_theta", config.rope_theta},
          {"rope_scaling", rope_scaling},
          {"norm_class", config.norm == NormKind::rms ? "rmsnorm" : "layernorm"},
          {"layer_norm_eps", config.norm_eps},
          {"l2norm_as_rmsnorm", config.l2norm_as_rmsnorm},
          {"hidden_act", activation_name()},
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

}  // namespace qeval::model
