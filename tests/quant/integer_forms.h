#pragma once

#include "model/config.h"

namespace qeval::test {

// Settings that turn a TinyModel's block into others: together they have every operation with an integer
// form.

inline void sandwich_with_soft_caps(model::ModelConfig& c) {
  c.form = model::BlockForm::sandwich;
  c.activation = model::Activation::gelu_tanh;
  c.scale_embedding = true;
  c.score_softcap = 3;
  c.logit_softcap = 8;
  c.attention_scale = 0.4F;
  c.layers = {{}, {.window = 7}};
}

inline void head_norms_and_local_rotary(model::ModelConfig& c) {
  c.form = model::BlockForm::glm_sandwich;
  c.qk_norm = model::QkNorm::head;
  c.local_rotary = model::Rotary{.theta = 100, .dim = 8, .scaling = {}};
  c.layers = {{.window = 5, .local_rotary = true}, {}};
}

inline void update_norms(model::ModelConfig& c) {
  c.form = model::BlockForm::update_norms;
  c.qk_norm = model::QkNorm::full_width;
}

inline void parallel_with_own_head_norms(model::ModelConfig& c) {
  c.form = model::BlockForm::parallel;
  c.norm = c.qk_norm_kind = model::NormKind::layer;
  c.norm_bias = false;
  c.qk_norm = model::QkNorm::head_own;
  c.logit_factor = 0.25F;
  c.layers = {{}, {.rotary = false}};
}

inline void parallel_with_two_norms(model::ModelConfig& c) {
  c.form = model::BlockForm::parallel_two_norms;
  c.norm = model::NormKind::layer;
  c.gated_mlp = false;
  c.activation = model::Activation::gelu_erf;
  c.qkv_bias = c.o_bias = c.mlp_bias = true;
}

inline void norms_behind_rotary(model::ModelConfig& c) {
  c.norm = c.qk_norm_kind = model::NormKind::layer;
  c.qk_norm = model::QkNorm::head_own;
  c.qk_norm_bias = true;
  c.qk_norm_after_rotary = true;
}

/// Cosines go up to 1.3 · 1.9, so that the tables have fewer fractional bits.
inline void factors_and_yarn(model::ModelConfig& c) {
  c.embedding_factor = 1.5F;
  c.residual_factor = 0.3F;
  c.attention_scale = 0.2F;
  c.logit_factor = 0.5F;
  c.position_beta = 0.3;
  c.position_original = 6;
  c.rotary.dim = c.head_dim;
  c.rotary.scaling = {.kind = model::RopeScaling::Kind::yarn,
                      .factor = 8,
                      .original_max_position_embeddings = 32,
                      .attention_factor = 1.3,
                      .long_factors = {},
                      .short_factors = {}};
}

inline void positions_and_relu(model::ModelConfig& c) {
  c.norm = model::NormKind::layer;
  c.learned_positions = true;
  c.position_offset = 2;
  c.gated_mlp = false;
  c.activation = model::Activation::relu;
  c.layers = {{.rotary = false}, {.rotary = false}};
}

inline void windows(model::ModelConfig& c) {
  c.layers = {{.window = 9}, {.window = 1}};
  c.head_dim = 11;
}

inline void rotated(model::ModelConfig& c) {
  c.rotation = model::Rotation{.down_block = 20, .query_key_block = 4};
}

/// Rotations that read codes, of 16 bits behind a norm, and of the activation.
inline void rotated_without_a_gate(model::ModelConfig& c) {
  c.rotation = model::Rotation{.down_block = 40, .query_key_block = 8};
  c.gated_mlp = false;
  c.activation = model::Activation::gelu_erf;
  c.qk_norm = model::QkNorm::head;
  c.layers = {{.rotary = false}, {}};
}

/// Experts in every layer, chosen as `route` says.
inline void set_experts(model::ModelConfig& c, const model::RouteOp& route, int64_t shared_inner = 0,
                        bool shared_gate = false) {
  c.experts.emplace();
  c.experts->route = route;
  c.experts->inner = 20;
  c.experts->shared_inner = shared_inner;
  c.experts->shared_gate = shared_gate;
  c.layers = {{.sparse = true}, {.sparse = true}};
}

inline void experts(model::ModelConfig& c) {
  set_experts(c, {.experts = 6, .used = 2}, 12, true);
}

inline void normalized_experts_without_a_shared_one(model::ModelConfig& c) {
  set_experts(c, {.experts = 7, .used = 3, .normalize = true, .expert_scale = true});
}

/// What the best weigh together is often less than the least sum.
inline void corrected_experts(model::ModelConfig& c) {
  set_experts(c, {.experts = 8, .used = 2, .normalize = true, .least_sum = 0.6, .correction = true}, 16);
  c.experts->router_bias = c.experts->expert_bias = c.experts->shared_bias = true;
}

inline void experts_in_groups_of_a_sigmoid(model::ModelConfig& c) {
  set_experts(c, {.scores = model::RouteOp::Scores::sigmoid,
                  .experts = 12,
                  .used = 3,
                  .normalize = true,
                  .added_sum = 0.05,
                  .factor = 2.5,
                  .correction = true,
                  .groups = 4,
                  .used_groups = 2});
}

inline void experts_in_plain_groups(model::ModelConfig& c) {
  set_experts(c, {.experts = 12, .used = 2, .factor = 0.5, .groups = 3, .used_groups = 1});
}

inline void experts_near_the_best(model::ModelConfig& c) {
  set_experts(c, {.scores = model::RouteOp::Scores::sparse_mixer, .experts = 8, .used = 2, .jitter = 0.2F});
  c.norm = model::NormKind::layer;
}

/// As Gemma 4 has them: layers that borrow keys and values, sizes of heads that differ, inputs and factors of
/// layers.
inline void inputs_of_layers(model::ModelConfig& c) {
  c.form = model::BlockForm::sandwich;
  c.activation = model::Activation::gelu_tanh;
  c.scale_embedding = true;
  c.attention_scale = 1;
  c.qk_norm = model::QkNorm::head;
  c.v_norm = true;
  c.layer_inputs = model::LayerInputs{.size = 8, .vocab_size = 50};
  c.layer_scalar = true;
  c.num_layers = 4;
  c.head_dim = 6;
  c.rotary.dim = 10;
  c.local_rotary = model::Rotary{.theta = 100, .dim = 6, .scaling = {}};
  c.layers = {{.window = 7, .local_rotary = true, .kv_lent = true},
              {.head_dim = 10, .num_kv_heads = 1, .keys_as_values = true, .kv_lent = true},
              {.window = 7, .local_rotary = true, .intermediate_size = 80, .kv_from = 2},
              {.head_dim = 10, .num_kv_heads = 1, .kv_from = 2}};
}

/// Experts beside the MLP, with a router that has a norm of its own.
inline void experts_beside_an_mlp(model::ModelConfig& c) {
  set_experts(c, {.experts = 6, .used = 2, .normalize = true, .expert_scale = true});
  c.form = model::BlockForm::sandwich;
  c.experts_beside_mlp = true;
  c.layer_scalar = true;
}

inline void dynamic_and_xielu(model::ModelConfig& c) {
  c.gated_mlp = false;
  c.activation = model::Activation::xielu;
  c.rotary.scaling = {.kind = model::RopeScaling::Kind::dynamic,
                      .factor = 4,
                      .original_max_position_embeddings = 64,
                      .long_factors = {},
                      .short_factors = {}};
}

inline void longrope_and_relu2(model::ModelConfig& c) {
  c.gated_mlp = false;
  c.activation = model::Activation::relu2;
  c.rotary.scaling = {.kind = model::RopeScaling::Kind::longrope,
                      .original_max_position_embeddings = 64,
                      .attention_factor = 1.19,
                      .long_factors = {1.5, 2.5, 4},
                      .short_factors = {1, 1.1, 1.2}};
}

}  // namespace qeval::test
