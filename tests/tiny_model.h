#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "model/weights.h"

namespace qeval::test {

/// Tokens in no order that a position could be told from.
inline std::vector<int32_t> tokens(int64_t count, int64_t start = 5, int64_t vocabulary = 61) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>((i * i * 7 + 3 * i + start) % vocabulary));
  return ids;
}

/// Two texts to calibrate with, of a TinyModel's vocabulary.
inline std::vector<std::vector<int32_t>> two_samples() {
  std::vector<std::vector<int32_t>> all(2);
  for (int64_t i = 0; i < 40; ++i) all[0].push_back(static_cast<int32_t>((i * 17 + 3) % 61));
  for (int64_t i = 0; i < 30; ++i) all[1].push_back(static_cast<int32_t>((i * i + 5) % 61));
  return all;
}

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
    config.rotary.dim = 6;
    config.max_position_embeddings = 256;
    config.norm_eps = 1e-5;
    config.graph = model::make_graph(config);
  }

  model::ModelConfig config;

  /// Builds the weights for `config`; the TinyModel must outlive the result.
  model::Model build() {
    config.graph = model::make_graph(config);
    model::Model model;
    model.name = "tiny";
    model.config = config;
    const int64_t hidden = config.hidden_size;
    model.embedding = matrix("model.embed_tokens", config.vocab_size, hidden, 1.0F);
    for (int64_t i = 0; i < config.num_layers; ++i) {
      model::LayerWeights layer;
      const auto name = [&](model::Module module) {
        return "model.layers." + std::to_string(i) + "." + std::string(model::module_name(module));
      };
      const auto& operations = config.graph.block(i).operations;
      for (const model::Operation& operation : operations) {
        const auto* op = std::get_if<model::NormOp>(&operation);
        if (op != nullptr) layer.norms[op->module] = norm(name(op->module), *op);
      }
      for (const model::Operation& operation : operations) {
        const auto* op = std::get_if<model::LinearOp>(&operation);
        if (op == nullptr) continue;
        if (op->experts == 0) {
          layer.linears[op->module] = linear(name(op->module), op->rows, op->cols, op->bias);
        }
        for (int64_t e = 0; e < op->experts; ++e) {
          layer.experts[op->module].push_back(linear(name(op->module), op->rows, op->cols, op->bias));
        }
      }
      for (const model::Operation& operation : operations) add_numbers(operation, layer);
      model.layers.push_back(std::move(layer));
    }
    if (config.layer_inputs) {
      const int64_t size = config.layer_inputs->size, width = size * config.num_layers;
      model.layer_embedding = matrix("embed_layers", config.layer_inputs->vocab_size, width, 1.0F);
      model.layer_projection = linear("layer_projection", width, hidden, false);
      model.layer_projection_norm = norm("layer_norm", {.width = size, .group = size});
    }
    for (int64_t j = 1; config.altup && j < config.altup->streams; ++j) {
      model.altup_projections.push_back(linear("altup", hidden, hidden, false));
      model.altup_unembeddings.push_back(linear("altup", hidden, hidden, false));
    }
    if (config.graph.final_norm) model.final_norm = norm("model.norm", *config.graph.final_norm);
    const bool narrow = config.embedding_size != 0;
    model.head = linear("lm_head", config.vocab_size, narrow ? config.embedding_size : hidden, false);
    if (config.learned_positions) {
      const int64_t rows = config.max_position_embeddings + config.position_offset;
      model.positions = matrix("model.positions", rows, hidden, 0.5F);
    }
    if (narrow) {
      model.embedding = matrix("model.embed_tokens", config.vocab_size, config.embedding_size, 1.0F);
      model.embedding_in = linear("model.embedding_in", hidden, config.embedding_size, false);
      model.embedding_out = linear("model.embedding_out", config.embedding_size, hidden, false);
    }
    return model;
  }

 private:
  /// What an operation has besides matrices and norms.
  void add_numbers(const model::Operation& operation, model::LayerWeights& layer) {
    using model::Module;
    if (const auto* op = std::get_if<model::AttentionOp>(&operation); op != nullptr && op->sinks) {
      layer.vectors[Module::qk_product] = values(op->heads, 1.0F);
    }
    if (const auto* op = std::get_if<model::RouteOp>(&operation)) {
      if (op->correction) layer.vectors[Module::router] = values(op->experts, 0.3F);
      if (op->expert_scale) layer.vectors[Module::expert_mix] = values(op->experts, 1.0F);
    }
    if (const auto* op = std::get_if<model::ScaleOp>(&operation); op != nullptr && op->stored) {
      layer.vectors[op->module] = values(op->numbers, 1.0F);
    }
    if (const auto* op = std::get_if<model::ConvolveOp>(&operation)) {
      layer.vectors[op->module] = values(op->width * op->taps, 0.5F);
      if (op->bias) layer.biases[op->module] = values(op->width, 0.5F);
    }
    const auto* delta = std::get_if<model::DeltaRuleOp>(&operation);
    const auto* space = std::get_if<model::StateSpaceOp>(&operation);
    if (delta != nullptr || space != nullptr) {
      const int64_t heads = delta != nullptr ? delta->value_heads : space->heads;
      layer.state = {values(heads, 0.3F), values(heads, 0.5F), values(heads, 0.5F)};
      for (float& decay : layer.state.decay) decay = -std::exp(decay);
    }
    if (const auto* op = std::get_if<model::AltupOp>(&operation); op != nullptr && !layer.altup) {
      const int64_t m = op->streams;
      layer.altup = {values(op->width, 1.0F), values(m * op->width, 1.0F), values(m * m * m, 0.3F),
                     values(m * m, 0.3F)};
    }
  }
  std::vector<float> values(int64_t count, float scale) {
    std::normal_distribution<float> normal;  // whose own scale may not be 0
    std::vector<float> out(static_cast<size_t>(count));
    for (float& v : out) v = normal(random_) * scale;
    return out;
  }
  model::Matrix matrix(const std::string& name, int64_t rows, int64_t cols, float scale) {
    storage_.push_back(std::make_unique<std::vector<float>>(values(rows * cols, scale)));
    return {.name = name,
            .rows = rows,
            .cols = cols,
            .stored = model::StoredWeight(model::DType::f32, cols,
                                          reinterpret_cast<const std::byte*>(storage_.back()->data()))};
  }
  model::LinearWeights linear(const std::string& name, int64_t rows, int64_t cols, bool bias) {
    return {matrix(name, rows, cols, 0.3F), bias ? values(rows, 0.5F) : std::vector<float>{}};
  }
  model::NormWeights norm(const std::string& name, const model::NormOp& op) {
    std::vector<float> weight = values(op.weights(), op.weighted ? 0.2F : 0.0F);
    for (float& w : weight) w += 1.0F;
    return {name, weight, op.bias ? values(op.weights(), 0.2F) : std::vector<float>{}};
  }

  std::mt19937 random_;
  std::vector<std::unique_ptr<std::vector<float>>> storage_;
};

}  // namespace qeval::test
