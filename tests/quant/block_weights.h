#pragma once

#include <memory>
#include <vector>

#include "quant/methods/learn/block.h"

namespace qeval::test {

/// Views of a model's weights, decoded into memory that `matrices` keeps.
inline std::vector<quant::BlockWeights<float>> block_weights(
    model::Model& model, std::vector<std::unique_ptr<std::vector<float>>>& matrices) {
  std::vector<quant::BlockWeights<float>> blocks;
  for (model::LayerWeights& layer : model.layers) {
    quant::BlockWeights<float>& block = blocks.emplace_back();
    for (auto& [module, norm] : layer.norms) block.norm(module) = {&norm.weight, &norm.bias};
    for (auto& [module, weights] : layer.linears) {
      const model::Matrix& w = weights.weight;
      matrices.push_back(std::make_unique<std::vector<float>>(static_cast<size_t>(w.rows * w.cols)));
      w.decode_rows(0, w.rows, matrices.back()->data());
      block.linear(module) = {matrices.back()->data(), w.rows, w.cols, &weights.bias};
    }
  }
  return blocks;
}

}  // namespace qeval::test
