// Small settings of each form of block that families have, for tests that walk the graph.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/config.h"

namespace qeval::test {

struct FormCase {
  std::string name;
  std::function<void(model::ModelConfig&)> change;  ///< of a TinyModel's
  std::string scheme;
};

/// Between them they have every operation of the block graph, and every setting of it, that the paper's
/// blocks lack, but for latent attention and xIELU.
inline std::vector<FormCase> block_forms() {
  using model::BlockForm;
  using model::QkNorm;
  return {FormCase{"sandwich_with_soft_caps",
                   [](model::ModelConfig& c) {
                     c.architecture = "gemma2";
                     c.form = BlockForm::sandwich;
                     c.activation = model::Activation::gelu_tanh;
                     c.scale_embedding = true;
                     c.score_softcap = 3;
                     c.logit_softcap = 8;
                     c.attention_scale = 0.4F;
                     c.layers = {{.window = 7}, {}};
                   },
                   "w8a8"},
          FormCase{"sandwich_with_head_norms_and_local_rotary",
                   [](model::ModelConfig& c) {
                     c.form = BlockForm::glm_sandwich;
                     c.qk_norm = QkNorm::head;
                     c.local_rotary = model::Rotary{.theta = 100, .dim = 8, .scaling = {}};
                     c.layers = {{.window = 5, .local_rotary = true}, {}};
                   },
                   "w4a8"},
          FormCase{"update_norms_with_full_width_norms",
                   [](model::ModelConfig& c) {
                     c.form = BlockForm::update_norms;
                     c.qk_norm = QkNorm::full_width;
                     c.layers = {{.window = 1}, {.window = 9}};
                   },
                   "w8a8"},
          FormCase{"parallel_with_own_head_norms",
                   [](model::ModelConfig& c) {
                     c.form = BlockForm::parallel;
                     c.norm = c.qk_norm_kind = model::NormKind::layer;
                     c.norm_bias = false;
                     c.qk_norm = QkNorm::head_own;
                     c.logit_factor = 0.25F;
                     c.layers = {{}, {.rotary = false}};
                   },
                   "w8a8"},
          FormCase{"parallel_with_two_norms",
                   [](model::ModelConfig& c) {
                     c.form = BlockForm::parallel_two_norms;
                     c.norm = model::NormKind::layer;
                     c.gated_mlp = false;
                     c.activation = model::Activation::gelu_erf;
                     c.qkv_bias = c.o_bias = c.mlp_bias = true;
                   },
                   "w8a8"},
          FormCase{"norms_behind_the_rotary_embedding",
                   [](model::ModelConfig& c) {
                     c.qk_norm = QkNorm::head;
                     c.qk_norm_after_rotary = true;
                     c.position_beta = 0.3;
                     c.position_original = 6;
                   },
                   "w8a8"},
          FormCase{"own_head_norms_with_bias",
                   [](model::ModelConfig& c) {
                     c.norm = c.qk_norm_kind = model::NormKind::layer;
                     c.qk_norm = QkNorm::head_own;
                     c.qk_norm_bias = true;
                     c.qk_norm_after_rotary = true;
                   },
                   "w4a8"},
          FormCase{"factors",
                   [](model::ModelConfig& c) {
                     c.embedding_factor = 1.5F;
                     c.residual_factor = 0.6F;
                     c.attention_scale = 0.2F;
                     c.logit_factor = 0.5F;
                   },
                   "w8a8"},
          FormCase{"rotated",
                   [](model::ModelConfig& c) {
                     c.rotation = model::Rotation{.down_block = 20, .query_key_block = 2};
                     c.layers = {{}, {.rotary = false}};
                   },
                   "w8a8"},
          FormCase{"learned_positions",
                   [](model::ModelConfig& c) {
                     c.norm = model::NormKind::layer;
                     c.learned_positions = true;
                     c.position_offset = 2;
                     c.gated_mlp = false;
                     c.activation = model::Activation::relu;
                     c.layers = {{.rotary = false}, {.rotary = false}};
                   },
                   "w8a8"},
          FormCase{"norms_after_additions",
                   [](model::ModelConfig& c) {
                     c.form = BlockForm::after_add;
                     c.norm = model::NormKind::layer;
                     c.final_norm = false;
                     c.embedding_size = 12;
                     c.learned_positions = true;
                     c.gated_mlp = false;
                     c.activation = model::Activation::relu2;
                   },
                   "w8a8"}};
}

}  // namespace qeval::test
