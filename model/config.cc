#include "model/config.h"

#include <algorithm>
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

void check_rotary(const ModelConfig& config, const Rotary& rotary, const std::string& where) {
  const RopeScaling& scaling = rotary.scaling;
  check_positive(where, "rope_theta", rotary.theta, 1e15);
  int64_t width = config.latent ? config.latent->rope : config.head_dim;
  for (const LayerSettings& layer : config.layers) width = std::max(width, layer.head_dim);
  if (rotary.dim < 2 || rotary.dim > width || rotary.dim % 2 != 0) {
    fail(
        "{}: {} of {} channels of a head rotate; accepted: an even number from 2 (check "
        "partial_rotary_factor)",
        where, rotary.dim, width);
  }
  if (scaling.kind == RopeScaling::Kind::none) return;
  if (scaling.kind != RopeScaling::Kind::longrope) {
    check_positive(where, "the rope scaling factor", scaling.factor, 1e6);
  }
  if (scaling.kind == RopeScaling::Kind::linear) return;
  check_positive(where, "original_max_position_embeddings", scaling.original_max_position_embeddings, 1e9);
  check_positive(where, "attention_factor", scaling.attention_factor, 1e6);
  if (scaling.kind == RopeScaling::Kind::yarn) {
    check_positive(where, "beta_fast", scaling.beta_fast, 1e9);
    check_positive(where, "beta_slow", scaling.beta_slow, 1e9);
  }
  if (scaling.kind != RopeScaling::Kind::llama3) return;
  check_positive(where, "low_freq_factor", scaling.low_freq_factor, 1e6);
  check_positive(where, "high_freq_factor", scaling.high_freq_factor, 1e6);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    fail("{}: high_freq_factor is {}; accepted: above low_freq_factor, {}", where, scaling.high_freq_factor,
         scaling.low_freq_factor);
  }
}

/// A factor that is finite, and not 0.
void check_factor(const std::string& where, const char* what, float value) {
  if (!(std::isfinite(value) && value != 0))
    fail("{}: {} is {}; accepted: a number other than 0", where, what, value);
}

void check_experts(const Experts& e, const std::string& where) {
  check_range(where, "the number of experts", e.route.experts, 4096);
  check_range(where, "the number of experts per token", e.route.used, e.route.experts);
  check_range(where, "the experts' intermediate size", e.inner, int64_t{1} << 20);
  if (e.shared_inner != 0)
    check_range(where, "the shared expert's intermediate size", e.shared_inner, 1 << 20);
  if (e.route.groups < 1 || e.route.experts % e.route.groups != 0) {
    fail("{}: {} groups of experts; accepted: a divisor of their number, {}", where, e.route.groups,
         e.route.experts);
  }
  check_range(where, "the number of groups per token", e.route.used_groups, e.route.groups);
  if (e.route.used > e.route.used_groups * (e.route.experts / e.route.groups)) {
    fail("{}: {} experts per token out of {} groups of {}; accepted: as many as those hold", where,
         e.route.used, e.route.used_groups, e.route.experts / e.route.groups);
  }
}

void check_recurrence(const Recurrence& r, const std::string& where) {
  check_range(where, "the taps of the convolution", r.taps, 64);
  if (r.kind == Recurrence::Kind::convolution) return;
  check_range(where, "the number of key heads or groups", r.key_heads, 4096);
  check_range(where, "the number of value heads", r.value_heads, 4096);
  check_range(where, "the state's key size", r.key_dim, 8192);
  check_range(where, "the state's value size", r.value_dim, 8192);
  if (r.value_heads % r.key_heads != 0) {
    fail("{}: {} value heads; accepted: a multiple of the {} key heads or groups", where, r.value_heads,
         r.key_heads);
  }
  if (r.norm != Recurrence::Norm::none &&
      (r.norm_group < 1 || r.value_heads * r.value_dim % r.norm_group != 0)) {
    fail("{}: the mixer's norm over {} channels; accepted: a divisor of {}", where, r.norm_group,
         r.value_heads * r.value_dim);
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
  const auto rotates = [&](bool local) {
    for (int64_t i = 0; i < config.num_layers; ++i) {
      if (config.layer(i).rotary && config.layer(i).local_rotary == local) return true;
    }
    return false;
  };
  if (rotates(false)) check_rotary(config, config.rotary, where);
  if (rotates(true)) check_rotary(config, config.local_rotary.value(), where);
  check_positive(where, "the norm's eps", config.norm_eps, 1.0);
  check_factor(where, "the embedding's factor", config.embedding_factor);
  check_factor(where, "the residual factor", config.residual_factor);
  check_factor(where, "the logits' factor", config.logit_factor);
  for (const auto& [what, cap] : {std::pair{"the scores' soft cap", config.score_softcap},
                                  {"the logits' soft cap", config.logit_softcap}}) {
    if (!(cap >= 0 && std::isfinite(cap))) fail("{}: {} is {}; accepted: 0 (none) or more", where, what, cap);
  }
  if (config.experts) check_experts(*config.experts, where);
  if (config.recurrence) check_recurrence(*config.recurrence, where);
  for (const auto& [what, factor] : {std::pair{"the attention's input factor", config.attention_in},
                                     {"the attention's output factor", config.attention_out},
                                     {"the keys' factor", config.key_factor},
                                     {"the gate's factor", config.gate_factor},
                                     {"the MLP's factor", config.mlp_factor}}) {
    check_factor(where, what, factor);
  }
  if (!std::isfinite(config.attention_scale)) {
    fail("{}: the attention's scale is {}; accepted: a finite number", where, config.attention_scale);
  }
}

int64_t Rotary::length_class(int64_t tokens) const {
  const bool longer = static_cast<double>(tokens) > scaling.original_max_position_embeddings;
  if (!longer) return 0;
  if (scaling.kind == RopeScaling::Kind::dynamic) return tokens;
  const bool differs =
      scaling.kind == RopeScaling::Kind::longrope &&
      (scaling.long_factors != scaling.short_factors ||
       (scaling.long_attention_factor != 0 && scaling.long_attention_factor != scaling.attention_factor));
  return differs ? 1 : 0;
}

int64_t ModelConfig::context() const {
  const RopeScaling::Kind kind = rotary.scaling.kind;
  const bool stretched = kind == RopeScaling::Kind::dynamic || kind == RopeScaling::Kind::yarn ||
                         kind == RopeScaling::Kind::longrope;
  constexpr int64_t kUnbounded = int64_t{1} << 20;
  return stretched && !learned_positions ? std::max(kUnbounded, max_position_embeddings)
                                         : max_position_embeddings;
}

int64_t ModelConfig::length_class(int64_t tokens) const {
  const int64_t of_local = local_rotary ? local_rotary->length_class(tokens) : 0;
  return std::max(rotary.length_class(tokens), of_local);
}

void apply_rotation(ModelConfig& config) {
  if (!config.rotation || !config.rotation->residual || config.norm == NormKind::rms) return;
  if (config.norm_bias) config.qkv_bias = config.mlp_bias = config.head_bias = true;
  config.norm = NormKind::rms;
}

bool is_papers_block(const ModelConfig& config) {
  const RopeScaling::Kind scaling = config.rotary.scaling.kind;
  const bool plain_rotary = scaling == RopeScaling::Kind::none || scaling == RopeScaling::Kind::linear ||
                            scaling == RopeScaling::Kind::llama3;
  const bool plain_activation = config.activation == Activation::silu ||
                                config.activation == Activation::gelu_erf ||
                                config.activation == Activation::gelu_tanh;
  return config.form == BlockForm::pre && config.norm_bias && config.final_norm && plain_activation &&
         config.gated_mlp && config.embedding_factor == 1 && config.residual_factor == 1 &&
         config.logit_factor == 1 && config.logit_softcap == 0 && !config.learned_positions &&
         config.embedding_size == 0 && config.qk_norm == QkNorm::none && config.attention_scale == 0 &&
         config.score_softcap == 0 && config.position_beta == 0 && !config.latent && config.layers.empty() &&
         !config.experts && !config.recurrence && !config.layer_inputs && !config.altup &&
         !config.attention_gate && !config.attention_sinks && !config.v_norm && config.qkv_clip == 0 &&
         !config.layer_scalar && !config.head_bias && plain_rotary && (config.qkv_bias || !config.o_bias);
}

}  // namespace qeval::model
