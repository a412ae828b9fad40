#include "quant/methods/editable_model.h"

#include <cassert>

#include "quant/grid/stored_codes.h"

namespace qeval::quant {

using model::LinearWeights;

namespace {

/// `matrix` ← a view of its values in `buffer`.
void decode_into(model::Matrix& matrix, AlignedBuffer& buffer) {
  buffer.resize(static_cast<size_t>(matrix.rows * matrix.cols) * sizeof(float));
  parallel_ranges(matrix.rows, kRowGrain, [&](int64_t first, int64_t last) {
    matrix.decode_rows(first, last - first, buffer.as<float>() + first * matrix.cols);
  });
  matrix.stored = model::StoredWeight(buffer.as<float>(), matrix.cols);
  matrix.interleaved_head_dim = 0;
  matrix.block_rows = matrix.block_stride = 0;
}

}  // namespace

EditableModel::EditableModel(const model::Model& source) : model_(source) {
  for (model::LayerWeights& layer : model_.layers) {
    auto& weights = weights_.emplace_back();
    auto& of_experts = experts_.emplace_back();
    for (auto& [module, linear] : layer.linears) decode_into(linear.weight, weights[module]);
    for (auto& [module, experts] : layer.experts) {
      for (LinearWeights& expert : experts) decode_into(expert.weight, of_experts[module].emplace_back());
    }
  }
}

void EditableModel::edit_ends() {
  decode_into(model_.embedding, embedding_);
  if (model_.positions.rows > 0) decode_into(model_.positions, positions_);
  decode_into(model_.head.weight, head_);
}

EditableModel::Linear EditableModel::linear(int64_t layer, Module module) {
  return linears(layer, module).front();
}

std::vector<EditableModel::Linear> EditableModel::linears(int64_t layer, Module module) {
  const auto l = static_cast<size_t>(layer);
  model::LayerWeights& weights = model_.layers[l];
  std::vector<Linear> found;
  const auto add = [&](LinearWeights& own, AlignedBuffer& buffer) {
    assert(own.weight.stored.coded() == nullptr);
    found.push_back({own.weight.rows, own.weight.cols, buffer.as<float>(), own.bias});
  };
  if (const auto own = weights.linears.find(module); own != weights.linears.end()) {
    add(own->second, weights_[l].at(module));
    return found;
  }
  std::vector<LinearWeights>& experts = weights.experts.at(module);
  for (size_t e = 0; e < experts.size(); ++e) add(experts[e], experts_[l].at(module)[e]);
  return found;
}

void EditableModel::set_codes(int64_t layer, Module module, const QuantizedMatrix& codes, int64_t expert) {
  const auto l = static_cast<size_t>(layer), e = static_cast<size_t>(expert);
  model::LayerWeights& weights = model_.layers[l];
  const auto own = weights.linears.find(module);
  const bool is_one = own != weights.linears.end();
  (is_one ? own->second : weights.experts.at(module)[e]).weight.stored = store_codes(codes);
  (is_one ? weights_[l].at(module) : experts_[l].at(module)[e]) = AlignedBuffer();
}

}  // namespace qeval::quant
