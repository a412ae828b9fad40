#include "quant/methods/editable_model.h"

#include <cassert>

#include "quant/grid/stored_codes.h"

namespace qeval::quant {

using model::LinearWeights;

namespace {

/// `matrix` ← a view of its values in `buffer`.
void decode_into(model::Matrix& matrix, AlignedBuffer& buffer) {
  buffer.resize(static_cast<size_t>(matrix.rows * matrix.cols) * sizeof(float));
  constexpr int64_t kRowGrain = 16;
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
    for (auto& [module, linear] : layer.linears) decode_into(linear.weight, weights[module]);
    for (auto& [module, experts] : layer.experts) {
      for (LinearWeights& expert : experts) decode_into(expert.weight, experts_.emplace_back());
    }
  }
}

void EditableModel::edit_ends() {
  decode_into(model_.embedding, embedding_);
  if (model_.positions.rows > 0) decode_into(model_.positions, positions_);
  decode_into(model_.head.weight, head_);
}

EditableModel::Linear EditableModel::linear(int64_t layer, Module module) {
  const auto l = static_cast<size_t>(layer);
  LinearWeights& weights = model_.layers[l].linears.at(module);
  assert(weights.weight.stored.coded() == nullptr);
  return {weights.weight.rows, weights.weight.cols, weights_[l].at(module).as<float>(), weights.bias};
}

void EditableModel::set_codes(int64_t layer, Module module, const QuantizedMatrix& codes) {
  const auto l = static_cast<size_t>(layer);
  model_.layers[l].linears.at(module).weight.stored = store_codes(codes);
  weights_[l].at(module) = AlignedBuffer();
}

}  // namespace qeval::quant
