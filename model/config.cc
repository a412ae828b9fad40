#include "model/config.h"

#include <cmath>

#include "base/error.h"
#include "model/config_check.h"

namespace qeval::model {
namespace {

void check_range(const std::string& where, const char* what, int64_t value, int64_t limit) {
  if (value < 1 || value > limit) fail("{}: {} is {}; accepted: 1 to {}", where, what, value, limit);
}

void check_positive(const std::string& where, const char* what, double value, double limit) {
  if (!(value > 0 && value <= limit)) {
    fail("{}: {} is {}; accepted: above 0, at most {}", where, what, value, limit);
  }
}

void check_token(const std::string& where, const char* what, std::optional<int32_t> token,
                 int64_t vocab_size) {
  if (token && (*token < 0 || *token >= vocab_size)) {
    fail("{}: {} is {}; accepted: 0 to {} (vocab_size - 1)", where, what, *token, vocab_size - 1);
  }
}

void check_rope(const ModelConfig& config, const std::string& where) {
  const RopeScaling& scaling = config.rope_scaling;
  check_positive(where, "rope_theta", config.rope_theta, 1e15);
  if (scaling.kind == RopeScaling::Kind::none) return;
  check_positive(where, "the rope scaling factor", scaling.factor, 1e6);
  if (scaling.kind == RopeScaling::Kind::linear) return;
  check_positive(where, "low_freq_factor", scaling.low_freq_factor, 1e6);
  check_positive(where, "high_freq_factor", scaling.high_freq_factor, 1e6);
  check_positive(where, "original_max_position_embeddings", scaling.original_max_position_embeddings, 1e9);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    fail("{}: high_freq_factor is {}; accepted: above low_freq_factor, {}", where, scaling.high_freq_factor,
         scaling.low_freq_factor);
  }
}

}  // namespace

void check_sizes(const ModelConfig& config, const std::string& where) {
  check_range(where, "vocab_size", config.vocab_size, int64_t{1} << 24);
  check_range(where, "hidden_size", config.hidden_size, int64_t{1} << 18);
  check_range(where, "intermediate_size", config.intermediate_size, int64_t{1} << 20);
  check_range(where, "num_hidden_layers", config.num_layers, 4096);
  check_range(where, "num_attention_heads", config.num_heads, 4096);
  check_range(where, "num_key_value_heads", config.num_kv_heads, config.num_heads);
  check_range(where, "head_dim", config.head_dim, 8192);
  check_range(where, "max_position_embeddings", config.max_position_embeddings, int64_t{1} << 30);
  if (config.num_heads % config.num_kv_heads != 0) {
    fail("{}: num_key_value_heads is {}; accepted: a divisor of num_attention_heads, {}", where,
         config.num_kv_heads, config.num_heads);
  }
}

void check_config(const ModelConfig& config, const std::string& where) {
  check_sizes(config, where);
  if (config.rotary_dim < 2 || config.rotary_dim > config.head_dim || config.rotary_dim % 2 != 0) {
    fail(
        "{}: {} of {} channels of a head rotate; accepted: an even number from 2 (check "
        "partial_rotary_factor)",
        where, config.rotary_dim, config.head_dim);
  }
  check_positive(where, "the norm's eps", config.norm_eps, 1.0);
  check_rope(config, where);
  check_token(where, "bos_token_id", config.bos_token_id, config.vocab_size);
  check_token(where, "eos_token_id", config.eos_token_id, config.vocab_size);
}

}  // namespace qeval::model
