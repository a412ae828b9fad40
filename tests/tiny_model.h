#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "model/weights.h"

namespace qeval::test {

/// A random model of a few thousand parameters, in memory: for tests that need a forward pass and no file.
class TinyModel {
 public:
  explicit TinyModel(unsigned seed = 1) : random_(seed) {
    config.architecture = "llama";
    config.vocab_size = 61;
    config.hidden_size = 24;
    config.intermediate_size = 40;
    config.num_layers = 2;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = 10;
    config.rotary_dim = 6;
    config.max_position_embeddings = 256;
    config.norm_eps = 1e-5;
  }

  model::ModelConfig config;

  /// Builds the weights for `config`; the TinyModel must outlive the result.
  model::Model build() {
    model::Model model;
    model.name = "tiny";
    model.config = config;
    const int64_t hidden = config.hidden_size;
    const int64_t q = config.num_heads * config.head_dim;
    const int64_t kv = config.num_kv_heads * config.head_dim;
    model.embedding = matrix("model.embed_tokens", config.vocab_size, hidden, 1.0F);
    for (int64_t i = 0; i < config.num_layers; ++i) {
      model::LayerWeights layer;
      const std::string block = "model.layers." + std::to_string(i) + ".";
      const std::string attention = block + "self_attn.", mlp = block + "mlp.";
      layer.input_norm = norm(block + "input_layernorm");
      layer.post_attention_norm = norm(block + "post_attention_layernorm");
      layer.q = linear(attention + "q_proj", q, hidden, config.qkv_bias);
      layer.k = linear(attention + "k_proj", kv, hidden, config.qkv_bias);
      layer.v = linear(attention + "v_proj", kv, hidden, config.qkv_bias);
      layer.o = linear(attention + "o_proj", hidden, q, config.o_bias);
      layer.gate = linear(mlp + "w1", config.intermediate_size, hidden, config.mlp_bias);
      layer.up = linear(mlp + "w3", config.intermediate_size, hidden, config.mlp_bias);
      layer.down = linear(mlp + "w2", hidden, config.intermediate_size, config.mlp_bias);
      model.layers.push_back(std::move(layer));
    }
    model.final_norm = norm("model.norm");
    model.head = linear("lm_head", config.vocab_size, hidden, false);
    return model;
  }

 private:
  std::vector<float> values(int64_t count, float scale) {
    std::normal_distribution<float> normal(0.0F, scale);
    std::vector<float> out(static_cast<size_t>(count));
    for (float& v : out) v = normal(random_);
    return out;
  }
  model::Matrix matrix(const std::string& name, int64_t rows, int64_t cols, float scale) {
    storage_.push_back(std::make_unique<std::vector<float>>(values(rows * cols, scale)));
    return {.name = name,
            .dtype = model::DType::f32,
            .rows = rows,
            .cols = cols,
            .data = reinterpret_cast<const std::byte*>(storage_.back()->data()),
            .row_bytes = cols * 4};
  }
  model::LinearWeights linear(const std::string& name, int64_t rows, int64_t cols, bool bias) {
    return {matrix(name, rows, cols, 0.3F), bias ? values(rows, 0.5F) : std::vector<float>{}};
  }
  model::NormWeights norm(const std::string& name) {
    std::vector<float> weight = values(config.hidden_size, 0.2F);
    for (float& w : weight) w += 1.0F;
    return {name, weight,
            config.norm == model::NormKind::layer ? values(config.hidden_size, 0.2F) : std::vector<float>{}};
  }

  std::mt19937 random_;
  std::vector<std::unique_ptr<std::vector<float>>> storage_;
};

}  // namespace qeval::test
