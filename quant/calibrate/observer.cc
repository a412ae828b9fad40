#include "quant/calibrate/observer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/decoder.h"
#include "model/kernels/kernels.h"

namespace qeval::quant {

using model::AttentionTile;
using model::Tensor;

ObservedArithmetic::ObservedArithmetic(const model::Model& model, int64_t max_positions,
                                       PointObserver& observer, bool skip_first)
    : FloatArithmetic(model, max_positions), observer_(observer), skip_first_(skip_first) {}

void ObservedArithmetic::report_rows(const Point& point, const Tensor& positions, const float* x,
                                     int64_t first, int64_t last, int64_t cols) const {
  const auto observe = [&](int64_t begin, int64_t end) {
    if (begin < end) observer_.observe(point, x + (begin - first) * cols, end - begin, cols, cols);
  };
  if (skip_first_) {
    for (const int64_t row : positions.first_rows) {
      if (row < first || row >= last) continue;
      observe(first, row);
      x += (row + 1 - first) * cols;
      first = row + 1;
    }
  }
  observe(first, last);
}

void ObservedArithmetic::report(const Point& point, const Tensor& tensor) const {
  constexpr int64_t kRows = 32;
  parallel_ranges(tensor.rows, kRows, [&](int64_t first, int64_t last) {
    report_rows(point, tensor, tensor.row<float>(first), first, last, tensor.cols);
  });
}

void ObservedArithmetic::report_operand(int64_t layer, model::Operand operand, const Tensor& tensor) const {
  const std::optional<Point> point = operand_point(layer, operand);
  // Where a point of its own stands between, the tensor is the same: it is reported there.
  if (point && made_at(config(), *point) == *point) report(*point, tensor);
}

void ObservedArithmetic::norm(int64_t layer, const model::NormOp& op, const Tensor& in, Tensor& out) const {
  const Point input{layer, op.module, Slot::input};
  if (made_at(config(), input) == input) report(input, in);
  FloatArithmetic::norm(layer, op, in, out);
  report({layer, op.module, Slot::output}, out);
}

void ObservedArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  if (targets.front().op->in == model::Value::mixed) report({layer, Module::pv_product, Slot::output}, in);
  for (const Target& target : targets) {
    if (target.op->in == model::Value::residual) report({layer, target.op->module, Slot::input}, in);
  }
  FloatArithmetic::linear(layer, in, targets);
  for (const Target& target : targets) {
    report({layer, target.op->module, Slot::output}, *target.out);
    report_operand(layer, target.op->operand, *target.out);
  }
}

void ObservedArithmetic::rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
                                Tensor& heads) const {
  FloatArithmetic::rotate(layer, op, rows, heads);
  report_operand(layer, op.operand, heads);
}

void ObservedArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  score_keys(tile, q, tile.key_count);
  const int64_t skipped = skipped_rows(tile), rows = tile.query_count * tile.op->group() - skipped;
  const float* scores = tile.scores.as<float>() + skipped * score_stride(tile);
  if (rows == 0) return;
  observer_.observe({tile.layer, Module::qk_product, Slot::output}, scores, rows, tile.key_count,
                    score_stride(tile));
  if (tile.op->softcap == 0) return;
  std::vector<float> capped;
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = scores + r * score_stride(tile);
    capped.insert(capped.end(), row, row + tile.key_count);
  }
  cap_scores(*tile.op, capped.data(), std::ssize(capped));
  observer_.observe({tile.layer, Module::softcap, Slot::output}, capped.data(), rows, tile.key_count,
                    tile.key_count);
}

void ObservedArithmetic::softmax(const AttentionTile& tile) const {
  FloatArithmetic::softmax(tile);
  const int64_t stride = score_stride(tile);
  const int64_t rows = tile.query_count * tile.op->group(), skipped = skipped_rows(tile);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = tile.scores.as<float>() + r * stride;
    std::fill(row + tile.last_end(), row + tile.key_count, 0.0F);
  }
  if (rows == skipped) return;
  observer_.observe({tile.layer, Module::pv_product, Slot::input}, tile.scores.as<float>() + skipped * stride,
                    rows - skipped, tile.key_count, stride);
}

void ObservedArithmetic::activate(int64_t layer, const model::ActivateOp& op, Tensor& gate) const {
  FloatArithmetic::activate(layer, op, gate);
  report({layer, op.module, Slot::output}, gate);
}

void ObservedArithmetic::multiply(int64_t layer, const model::MultiplyOp& op, const Tensor& up,
                                  Tensor& gate) const {
  if (op.by == model::Value::layer_inputs) {
    observer_.observe({layer, op.module, Slot::input2}, up.row<float>(0) + op.first, up.rows, op.width,
                      up.cols);
  }
  FloatArithmetic::multiply(layer, op, up, gate);
  if (op.module != Module::down || config().graph.block(layer).hadamard(model::Value::gate) == nullptr)
    report({layer, op.module, Slot::input}, gate);
}

void ObservedArithmetic::hadamard(int64_t layer, const model::HadamardOp& op, Tensor& value) const {
  FloatArithmetic::hadamard(layer, op, value);
  report(hadamard_point(layer, op), value);
}

void ObservedArithmetic::expert_linear(int64_t layer, const Tensor& in, const model::Routing& routing,
                                       std::span<const Target> targets) const {
  FloatArithmetic::expert_linear(layer, in, routing, targets);
  for (const Target& target : targets) report({layer, target.op->module, Slot::output}, *target.out);
}

void ObservedArithmetic::mix_experts(int64_t layer, const model::MixExpertsOp& op,
                                     const ExpertResults& results, const model::Routing& routing,
                                     Tensor& out) const {
  observer_.observe({layer, op.module, Slot::input}, routing.weights.data(), routing.rows, routing.used,
                    routing.used);
  FloatArithmetic::mix_experts(layer, op, results, routing, out);
  report({layer, op.module, Slot::output}, out);
}

void ObservedArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  const Point output{0, Module::head, Slot::output};
  if (!observer_.wants(output)) {
    std::fill_n(logits, normed.rows * count, 0.0F);
    return;
  }
  head_product(normed, first, count, logits);
  report_rows(output, normed, logits, 0, normed.rows, count);
  finish_logits(logits, normed.rows * count);
}

void run_first_tokens(const model::Model& model, const model::Arithmetic& arithmetic,
                      std::span<const int32_t> tokens) {
  constexpr size_t kTokens = 256;
  model::Decoder decoder(model, arithmetic);
  for (size_t first = 0; first < tokens.size(); first += kTokens) {
    const auto part = tokens.subspan(first, std::min(kTokens, tokens.size() - first));
    std::vector<model::KvSpan> spans;
    spans.reserve(part.size());
    model::Batch batch;
    std::vector<model::TokenQuery> queries;
    for (size_t i = 0; i < part.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      spans.emplace_back(arithmetic, 1, 1);
      batch.tokens.push_back(part[i]);
      batch.positions.push_back(0);
      if (model.config.depends_on_length()) batch.lengths.push_back(1);
      batch.segments.push_back({.first_row = row, .length = 1, .first_position = 0, .kv = &spans.back()});
      queries.push_back({row, 0});
    }
    decoder.forward(batch);
    decoder.answer(queries);
  }
}

model::Batch sample_batch(const model::Model& model, std::span<const int32_t> sample, model::KvSpan& kv) {
  const auto length = static_cast<int64_t>(sample.size());
  model::Batch batch;
  batch.tokens.assign(sample.begin(), sample.end());
  for (int64_t i = 0; i < length; ++i) batch.positions.push_back(static_cast<int32_t>(i));
  if (model.config.depends_on_length()) batch.lengths.assign(sample.size(), static_cast<int32_t>(length));
  batch.segments.push_back({.first_row = 0, .length = length, .first_position = 0, .kv = &kv, .kv_at = 0});
  return batch;
}

std::vector<model::TokenAnswer> run_sample(const model::Model& model, const model::Arithmetic& arithmetic,
                                           std::span<const int32_t> sample) {
  const auto length = static_cast<int64_t>(sample.size());
  model::KvSpan kv(arithmetic, length, 1);
  std::vector<model::TokenQuery> queries;
  for (int64_t i = 0; i < length; ++i) {
    // The last position predicts nothing known; it is asked all the same, so that its logits are computed.
    queries.push_back({i, i + 1 < length ? sample[static_cast<size_t>(i) + 1] : 0});
  }
  model::Decoder decoder(model, arithmetic);
  decoder.forward(sample_batch(model, sample, kv));
  std::vector<model::TokenAnswer> answers = decoder.answer(queries);
  answers.pop_back();
  return answers;
}

}  // namespace qeval::quant
