#include "quant/observer.h"

#include <algorithm>
#include <cmath>

#include "model/decoder.h"
#include "model/kernels/kernels.h"

namespace qeval::quant {

using model::AttentionTile;
using model::NormPoint;
using model::Projection;
using model::Tensor;

Point observed_point(const Point& point) {
  const auto made_at = [&](Module module) { return Point{point.layer, module, Slot::output}; };
  if (point.slot == Slot::input) {
    switch (point.module) {
      case Module::q:
      case Module::k:
      case Module::v:
        return made_at(Module::input_norm);
      case Module::gate:
      case Module::up:
        return made_at(Module::post_attention_norm);
      case Module::o:
        return made_at(Module::pv_product);
      case Module::activation:
        return made_at(Module::gate);
      case Module::head:
        return made_at(Module::final_norm);
      default:
        break;
    }
  }
  if (point.module == Module::pv_product && point.slot == Slot::input2) return made_at(Module::v);
  return point;
}

ObservedArithmetic::ObservedArithmetic(const model::Model& model, int64_t max_positions,
                                       PointObserver& observer)
    : FloatArithmetic(model, max_positions), observer_(observer) {}

void ObservedArithmetic::report(const Point& point, const Tensor& tensor) const {
  constexpr int64_t kRows = 32;
  parallel_ranges(tensor.rows, kRows, [&](int64_t first, int64_t last) {
    observer_.observe(point, tensor.row<float>(first), last - first, tensor.cols, tensor.cols);
  });
}

void ObservedArithmetic::norm(int64_t layer, NormPoint point, const Tensor& residual, Tensor& out) const {
  const Module module = norm_module(point);
  if (is_after_blocks(module)) layer = 0;
  report({layer, module, Slot::input}, residual);
  FloatArithmetic::norm(layer, point, residual, out);
  report({layer, module, Slot::output}, out);
}

void ObservedArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  if (targets.front().projection == Projection::o) report({layer, Module::pv_product, Slot::output}, in);
  FloatArithmetic::linear(layer, in, targets);
  for (const Target& target : targets)
    report({layer, linear_module(target.projection), Slot::output}, *target.out);
}

void ObservedArithmetic::rotate(int64_t layer, Projection which, std::span<const int32_t> positions,
                                Tensor& heads) const {
  FloatArithmetic::rotate(layer, which, positions, heads);
  report({layer, Module::qk_product, which == Projection::q ? Slot::input : Slot::input2}, heads);
}

void ObservedArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  score_keys(tile, q, tile.key_count);
  observer_.observe({tile.layer, Module::qk_product, Slot::output}, tile.scores.as<float>(),
                    tile.query_count * group(), tile.key_count, score_stride(tile));
}

void ObservedArithmetic::softmax(const AttentionTile& tile) const {
  FloatArithmetic::softmax(tile);
  const int64_t stride = score_stride(tile);
  const int64_t rows = tile.query_count * group();
  for (int64_t r = 0; r < rows; ++r) {
    float* row = tile.scores.as<float>() + r * stride;
    std::fill(row + visible_keys(tile), row + tile.key_count, 0.0F);
  }
  observer_.observe({tile.layer, Module::pv_product, Slot::input}, tile.scores.as<float>(), rows,
                    tile.key_count, stride);
}

void ObservedArithmetic::activate(int64_t layer, Tensor& gate) const {
  FloatArithmetic::activate(layer, gate);
  report({layer, Module::activation, Slot::output}, gate);
}

void ObservedArithmetic::multiply(int64_t layer, const Tensor& up, Tensor& gate) const {
  FloatArithmetic::multiply(layer, up, gate);
  report({layer, Module::down, Slot::input}, gate);
}

void ObservedArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  FloatArithmetic::logits(normed, first, count, logits);
  observer_.observe({0, Module::head, Slot::output}, logits, normed.rows, count, count);
}

std::vector<model::TokenAnswer> run_sample(const model::Model& model, const model::Arithmetic& arithmetic,
                                           std::span<const int32_t> sample) {
  const auto length = static_cast<int64_t>(sample.size());
  model::KvSpan kv(arithmetic, length, 1);
  model::Batch batch;
  batch.tokens.assign(sample.begin(), sample.end());
  std::vector<model::TokenQuery> queries;
  for (int64_t i = 0; i < length; ++i) {
    batch.positions.push_back(static_cast<int32_t>(i));
    // The last position predicts nothing known; it is asked all the same, so that its logits are computed.
    queries.push_back({i, i + 1 < length ? sample[static_cast<size_t>(i) + 1] : 0});
  }
  batch.segments.push_back({.first_row = 0, .length = length, .first_position = 0, .kv = &kv, .kv_at = 0});
  model::Decoder decoder(model, arithmetic);
  decoder.forward(batch);
  std::vector<model::TokenAnswer> answers = decoder.answer(queries);
  answers.pop_back();
  return answers;
}

}  // namespace qeval::quant
