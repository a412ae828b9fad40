// Model configuration from GGUF metadata. Keys are prefixed by the architecture: "llama.block_count". Whether
// a projection has a bias, and whether the head is tied, shows in which tensors the file holds.

#include "base/error.h"
#include "model/checkpoint/gguf.h"
#include "model/config.h"
#include "model/config_check.h"

namespace qeval::model {
namespace {

/// Where several converters wrote an integer as float or the other way round, either is read.
double number_of_either_kind(const GgufFile& file, const std::string& key, double fallback) {
  const GgufValue* value = file.find_value(key);
  if (value != nullptr && std::holds_alternative<int64_t>(*value))
    return static_cast<double>(file.integer(key));
  return file.number_or(key, fallback);
}

RopeScaling read_rope_scaling(const GgufFile& file, const std::string& prefix) {
  RopeScaling scaling;
  // As llama.cpp has it: a file that names no type means linear, the older name counts where the newer one is
  // absent, and a factor of 0 is none.
  const std::string type = file.string_or(prefix + "rope.scaling.type", "linear");
  if (type == "none") return scaling;
  if (type != "linear") {
    fail("{}: {}rope.scaling.type is {}; accepted: none, linear", file.path().string(), prefix,
         printable(type));
  }
  const double older = number_of_either_kind(file, prefix + "rope.scale_linear", 1.0);
  const double factor = number_of_either_kind(file, prefix + "rope.scaling.factor", older);
  if (factor == 0.0 || factor == 1.0) return scaling;
  scaling.kind = RopeScaling::Kind::linear;
  scaling.factor = factor;
  return scaling;
}

std::optional<int32_t> read_token(const GgufFile& file, const char* key, int64_t vocab_size) {
  if (file.find_value(key) == nullptr) return std::nullopt;
  const int64_t id = file.integer(key);
  if (id < 0 || id >= vocab_size) return std::nullopt;  // the tokenizer warns of it
  return static_cast<int32_t>(id);
}

int64_t read_vocab_size(const GgufFile& file, const std::string& prefix) {
  if (file.find_value(prefix + "vocab_size") != nullptr) return file.integer(prefix + "vocab_size");
  const TensorView& embedding = file.require("token_embd.weight");
  return embedding.shape.front();
}

void refuse_unsupported(const GgufFile& file, const std::string& prefix) {
  const std::string where = file.path().string();
  if (const int64_t experts = file.integer_or(prefix + "expert_count", 0); experts > 0) {
    fail("{}: {}expert_count is {}; accepted: 0 (no mixture of experts)", where, prefix, experts);
  }
  if (const int64_t window = file.integer_or(prefix + "attention.sliding_window", 0); window > 0) {
    fail("{}: {}attention.sliding_window is {}; accepted: 0", where, prefix, window);
  }
  // Converters write "parallel" for files that merely do not say; a sequential block has a second norm.
  const bool second_norm = file.find("blk.0.ffn_norm.weight") != nullptr;
  if (file.boolean_or(prefix + "use_parallel_residual", false) && !second_norm) {
    fail("{}: {}use_parallel_residual is true; accepted: false", where, prefix);
  }
}

}  // namespace

ModelConfig read_config(const GgufFile& file) {
  const std::string where = file.path().string();
  ModelConfig config;
  config.architecture = file.string("general.architecture");
  const bool llama = config.architecture == "llama", gemma = config.architecture == "gemma";
  const bool stablelm = config.architecture == "stablelm";
  if (!llama && !gemma && !stablelm) {
    fail("{}: general.architecture is {}; accepted: llama, gemma, stablelm", where,
         printable(config.architecture));
  }
  const std::string prefix = config.architecture + ".";
  refuse_unsupported(file, prefix);
  config.vocab_size = read_vocab_size(file, prefix);
  config.hidden_size = file.integer(prefix + "embedding_length");
  config.intermediate_size = file.integer(prefix + "feed_forward_length");
  config.num_layers = file.integer(prefix + "block_count");
  config.num_heads = file.integer(prefix + "attention.head_count");
  config.num_kv_heads = file.integer_or(prefix + "attention.head_count_kv", config.num_heads);
  config.max_position_embeddings = file.integer(prefix + "context_length");

  if (config.num_heads < 1)
    fail("{}: {}attention.head_count is {}; accepted: 1 or more", where, prefix, config.num_heads);
  config.head_dim = file.integer_or(prefix + "attention.key_length", config.hidden_size / config.num_heads);
  if (const int64_t values = file.integer_or(prefix + "attention.value_length", config.head_dim);
      values != config.head_dim) {
    fail("{}: {}attention.value_length is {}; accepted: attention.key_length, {}", where, prefix, values,
         config.head_dim);
  }
  config.rotary_dim = file.integer_or(prefix + "rope.dimension_count", config.head_dim);
  if (!stablelm && config.rotary_dim != config.head_dim) {
    fail("{}: {}rope.dimension_count is {}; accepted: the head size, {}", where, prefix, config.rotary_dim,
         config.head_dim);
  }
  config.rope_theta = number_of_either_kind(file, prefix + "rope.freq_base", 10000.0);
  config.rope_scaling = read_rope_scaling(file, prefix);

  config.norm = stablelm ? NormKind::layer : NormKind::rms;
  config.norm_eps =
      file.number(prefix + (stablelm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"));
  config.activation = gemma ? Activation::gelu_tanh : Activation::silu;
  config.scale_embedding = gemma;
  config.tie_word_embeddings = file.find("output.weight") == nullptr;
  config.qkv_bias = file.find("blk.0.attn_q.bias") != nullptr;
  config.o_bias = file.find("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = file.find("blk.0.ffn_down.bias") != nullptr;
  config.bos_token_id = read_token(file, "tokenizer.ggml.bos_token_id", config.vocab_size);
  config.eos_token_id = read_token(file, "tokenizer.ggml.eos_token_id", config.vocab_size);
  check_config(config, where);
  return config;
}

}  // namespace qeval::model
