#include "quant/editable_model.h"

#include <cassert>
#include <utility>

namespace qeval::quant {

using model::LayerWeights;
using model::LinearWeights;
using model::Projection;

namespace {

constexpr int64_t kProjections = 7;

size_t buffer_index(int64_t layer, Projection projection) {
  return static_cast<size_t>(layer * kProjections + static_cast<int64_t>(projection));
}

template <typename Layer>
auto& select_linear(Layer& layer, Projection projection) {
  switch (projection) {
    case Projection::q:
      return layer.q;
    case Projection::k:
      return layer.k;
    case Projection::v:
      return layer.v;
    case Projection::o:
      return layer.o;
    case Projection::gate:
      return layer.gate;
    case Projection::up:
      return layer.up;
    case Projection::down:
      break;
  }
  return layer.down;
}

}  // namespace

const LinearWeights& linear_of(const LayerWeights& layer, Projection projection) {
  return select_linear(layer, projection);
}

const model::NormWeights& norm_of(const model::Model& model, int64_t layer, Module module) {
  if (module == Module::final_norm) return model.final_norm;
  const LayerWeights& block = model.layers[static_cast<size_t>(layer)];
  return module == Module::input_norm ? block.input_norm : block.post_attention_norm;
}

EditableModel::EditableModel(const model::Model& source) : model_(source) {
  for (LayerWeights& layer : model_.layers) {
    for (int64_t p = 0; p < kProjections; ++p) {
      model::Matrix& matrix = select_linear(layer, static_cast<Projection>(p)).weight;
      const int64_t row_bytes = matrix.cols * static_cast<int64_t>(sizeof(float));
      AlignedBuffer& buffer = weights_.emplace_back(static_cast<size_t>(matrix.rows * row_bytes));
      constexpr int64_t kRowGrain = 16;
      parallel_ranges(matrix.rows, kRowGrain, [&](int64_t first, int64_t last) {
        matrix.decode_rows(first, last - first, buffer.as<float>() + first * matrix.cols);
      });
      matrix.dtype = model::DType::f32;
      matrix.data = buffer.data();
      matrix.row_bytes = row_bytes;
      matrix.interleaved_head_dim = 0;
    }
  }
}

EditableModel::Linear EditableModel::linear(int64_t layer, Projection projection) {
  LinearWeights& weights = select_linear(model_.layers[static_cast<size_t>(layer)], projection);
  return {weights.weight.rows, weights.weight.cols, weights_[buffer_index(layer, projection)].as<float>(),
          weights.bias};
}

model::NormWeights& EditableModel::norm(int64_t layer, model::NormPoint point) {
  assert(point != model::NormPoint::final);
  LayerWeights& block = model_.layers[static_cast<size_t>(layer)];
  return point == model::NormPoint::input ? block.input_norm : block.post_attention_norm;
}

}  // namespace qeval::quant
