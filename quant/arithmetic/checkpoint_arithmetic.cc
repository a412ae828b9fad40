#include "quant/arithmetic/checkpoint_arithmetic.h"

#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/setting.h"
#include "model/kernels/gemm.h"
#include "quant/arithmetic/activation_rounding.h"

namespace qeval::quant {
namespace {

using model::ActivationRounding;
using model::Tensor;

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
    std::vector<Target> alike{targets[t]};
    for (size_t i = t + 1; i < targets.size(); ++i) {
      if (done[i] || weights(layer, *targets[i].op).input != rounding) continue;
      done[i] = true;
      alike.push_back(targets[i]);
    }
    multiply_alike(layer, in, alike);
    for (const Target& target : alike) {
      const std::optional<ActivationRounding>& output = weights(layer, *target.op).output;
      if (output) round_rows(*output, *target.out);
    }
  }
}

void CheckpointArithmetic::expert_linear(int64_t layer, const Tensor& in, const model::Routing& routing,
                                         std::span<const Target> targets) const {
  for (const Target& target : targets) {
    const std::vector<model::LinearWeights>& all = weights(layer).experts.at(target.op->module);
    // Experts may round their rows by scales of their own.
    Tensor own = rounded(std::nullopt, in, 0, in.rows);
    const auto round_all = [&](Tensor& tensor,
                               std::optional<ActivationRounding> model::LinearWeights::*what) {
      for (size_t e = 0; e < all.size(); ++e) {
        const std::optional<ActivationRounding>& rounding = all[e].*what;
        if (!rounding) continue;
        parallel_ranges(routing.first[e + 1] - routing.first[e], kRowGrain, [&](int64_t first, int64_t last) {
          for (int64_t r = first; r < last; ++r)
            round_activation(*rounding, tensor.row<float>(routing.first[e] + r), tensor.cols);
        });
      }
    };
    round_all(own, &model::LinearWeights::input);
    FloatArithmetic::expert_linear(layer, own, routing, {&target, 1});
    round_all(*target.out, &model::LinearWeights::output);
  }
}

void CheckpointArithmetic::multiply_alike(int64_t layer, const Tensor& in,
                                          std::span<const Target> targets) const {
  const std::optional<ActivationRounding>& rounding = weights(layer, *targets[0].op).input;
  if (rounding) {
    FloatArithmetic::linear(layer, rounded(rounding, in, 0, in.rows), targets);
  } else {
    FloatArithmetic::linear(layer, in, targets);
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

void CheckpointArithmetic::project_layers(const Tensor& embedded, Tensor& out) const {
  const model::LinearWeights& projection = model().layer_projection;
  FloatArithmetic::project_layers(rounded(projection.input, embedded, 0, embedded.rows), out);
  if (projection.output) round_rows(*projection.output, out);
}

void CheckpointArithmetic::finish(const Tensor& residual, Tensor& out) const {
  FloatArithmetic::finish(residual, out);
  if (model().head.input) round_rows(*model().head.input, out);
}

void CheckpointArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  multiply_head(normed, first, count, logits);
  if (model().head.output) round_activation(*model().head.output, logits, normed.rows * count);
  finish_logits(logits, normed.rows * count);
}

CheckpointIntegerArithmetic::CheckpointIntegerArithmetic(const model::Model& model, int64_t max_positions)
    : CheckpointArithmetic(model, max_positions) {
  layers_.resize(model.layers.size());
  for (size_t i = 0; i < model.layers.size(); ++i) {
    for (const auto& [module, weights] : model.layers[i].linears) {
      ++linears_;
      std::optional<CodedLinear> made = CodedLinear::make(weights);
      if (!made) continue;
      ++integer_linears_;
      layers_[i].emplace(module, std::move(*made));
    }
    for (const auto& [module, experts] : model.layers[i].experts) linears_ += std::ssize(experts);
  }
  ++linears_;
  head_ = CodedLinear::make(model.head);
  if (head_) ++integer_linears_;
  if (integer_linears_ > 0) return;
  fail(
      "{} integer: {} rounds activations as quant_method {} says, but no linear map multiplies integers of "
      "at most 8 bits by such (weights: {}); accepted: fake, float",
      setting("arithmetic"), model.path.string(), model.quant_method, model.weight_format());
}

void CheckpointIntegerArithmetic::multiply_alike(int64_t layer, const Tensor& in,
                                                 std::span<const Target> targets) const {
  const auto& coded = layers_[static_cast<size_t>(layer)];
  std::vector<Target> others;
  // By the columns that their sums are made of: nearly always one group.
  std::map<int64_t, std::vector<CodedLinear::Target>> by_segment;
  for (const Target& target : targets) {
    const auto found = coded.find(target.op->module);
    if (found == coded.end()) {
      others.push_back(target);
      continue;
    }
    const CodedLinear& linear = found->second;
    target.out->resize(in.rows, linear.rows(), sizeof(float));
    by_segment[linear.segment()].push_back({&linear, target.out->row<float>(0)});
  }
  for (const auto& [segment, group] : by_segment) {
    const CodedInput input(*weights(layer, *targets[0].op).input, in.row<float>(0), in.rows, in.cols,
                           segment);
    CodedLinear::multiply(input, group);
  }
  if (!others.empty()) CheckpointArithmetic::multiply_alike(layer, in, others);
}

void CheckpointIntegerArithmetic::finish(const Tensor& residual, Tensor& out) const {
  if (head_) {  // multiply_head() makes the codes, so that nothing is to be rounded before
    // NOLINTNEXTLINE(bugprone-parent-virtual-call)
    FloatArithmetic::finish(residual, out);
  } else {
    CheckpointArithmetic::finish(residual, out);
  }
}

void CheckpointIntegerArithmetic::multiply_head(const Tensor& normed, int64_t first, int64_t count,
                                                float* logits) const {
  if (!head_) {
    CheckpointArithmetic::multiply_head(normed, first, count, logits);
    return;
  }
  // Coded for each tile of the vocabulary anew: little beside the tile's product.
  const CodedInput input(*model().head.input, normed.row<float>(0), normed.rows, normed.cols,
                         head_->segment());
  head_->multiply(input, first, count, 0, normed.rows, logits, count);
}

}  // namespace qeval::quant
