#include "quant/arithmetic/checkpoint_arithmetic.h"

#include <cstring>
#include <vector>

#include "base/error.h"
#include "model/kernels/gemm.h"
#include "quant/arithmetic/activation_rounding.h"

namespace qeval::quant {
namespace {

using model::ActivationRounding;
using model::Tensor;

constexpr int64_t kRowGrain = 16;

void round_rows(const ActivationRounding& rounding, Tensor& tensor) {
  parallel_ranges(tensor.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) round_activation(rounding, tensor.row<float>(r), tensor.cols);
  });
}

/// A copy of rows [first, first + count), rounded.
Tensor rounded(const std::optional<ActivationRounding>& rounding, const Tensor& in, int64_t first,
               int64_t count) {
  Tensor out;
  out.resize(count, in.cols, sizeof(float));
  std::memcpy(out.row<float>(0), in.row<float>(first), static_cast<size_t>(count * in.cols) * sizeof(float));
  if (rounding) round_rows(*rounding, out);
  return out;
}

}  // namespace

CheckpointArithmetic::CheckpointArithmetic(const model::Model& model, int64_t max_positions)
    : FloatArithmetic(model, max_positions) {
  for (const model::LinearWeights* weights : {&model.embedding_in, &model.embedding_out}) {
    if (weights->input || weights->output) {
      fail("{}: rounds the activations of {}; accepted: those of the blocks and the head",
           model.path.string(), weights->weight.name);
    }
  }
  if (model.head.output && model.head.output->source != ActivationRounding::Scale::fixed)
    fail("{}: rounds the head's output by its own range; accepted: by a fixed scale", model.path.string());
}

void CheckpointArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  std::vector<bool> done(targets.size(), false);
  for (size_t t = 0; t < targets.size(); ++t) {
    if (done[t]) continue;
    // Projections of one input that round it alike are computed together.
    const std::optional<ActivationRounding> rounding = weights(layer, *targets[t].op).input;
    std::vector<Target> alike;
    for (size_t i = t; i < targets.size(); ++i) {
      if (done[i] || weights(layer, *targets[i].op).input != rounding) continue;
      done[i] = true;
      alike.push_back(targets[i]);
    }
    if (rounding) {
      FloatArithmetic::linear(layer, rounded(rounding, in, 0, in.rows), alike);
    } else {
      FloatArithmetic::linear(layer, in, alike);
    }
    for (const Target& target : alike) {
      const std::optional<ActivationRounding>& output = weights(layer, *target.op).output;
      if (output) round_rows(*output, *target.out);
    }
  }
}

void CheckpointArithmetic::store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row,
                                    int64_t count, const model::KvBlock& block, int64_t at) const {
  const model::LayerWeights& own = model().layers[static_cast<size_t>(layer)];
  if (!own.key && !own.value) {
    FloatArithmetic::store_kv(layer, k, v, first_row, count, block, at);
    return;
  }
  FloatArithmetic::store_kv(layer, rounded(own.key, k, first_row, count),
                            rounded(own.value, v, first_row, count), 0, count, block, at);
}

void CheckpointArithmetic::finish(const Tensor& residual, Tensor& out) const {
  FloatArithmetic::finish(residual, out);
  if (model().head.input) round_rows(*model().head.input, out);
}

void CheckpointArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  head_product(normed, first, count, logits);
  if (model().head.output) round_activation(*model().head.output, logits, normed.rows * count);
  finish_logits(logits, normed.rows * count);
}

}  // namespace qeval::quant
