#include "quant/methods/learn/fold.h"

#include <algorithm>

#include "quant/methods/learn/block_pass.h"

namespace qeval::quant {
namespace {

void fold_weight(const TransformedWeight<float>& weight, const QuantSpec& spec,
                 const Clipping<float>& clipping, float* stored) {
  const WeightGrids<float> grids = weight_grids(weight, spec, clipping);
  parallel_ranges(weight.rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      float* row = stored + r * weight.cols;
      weight.row(r, row);
      if (!spec.enabled()) continue;
      const MinMax<float> range = grids.clipped[spec.per_channel ? static_cast<size_t>(r) : 0];
      for (int64_t i = 0; i < weight.cols; ++i) row[i] = std::min(std::max(row[i], range.lo), range.hi);
    }
  });
}

}  // namespace

void fold_block(const Block<float>& block, const BlockParameters<float>& parameters) {
  const BlockWeights<float>& weights = block.weights;
  Workspace<float> workspace;
  const BlockPass<float> pass(block, &parameters, workspace, 0);
  for (const model::Operation& operation : block.graph->operations) {
    const auto* norm = std::get_if<model::NormOp>(&operation);
    const auto* linear = std::get_if<model::LinearOp>(&operation);
    if (norm == nullptr && linear == nullptr) continue;
    const Module module = norm != nullptr ? norm->module : linear->module;
    std::vector<float> bias;
    if (pass.bias(module, bias)) {
      *(norm != nullptr ? weights.norm(module).bias : weights.linear(module).bias) = bias;
    }
    fold_weight(pass.weight(module), block.spec(module, Slot::weight), pass.clipping(module),
                norm != nullptr ? weights.norm(module).weight->data() : weights.linear(module).weight);
  }
}

BlockParameters<float> folded_parameters(const BlockParameters<float>& parameters) {
  BlockParameters<float> folded = parameters;
  folded.let = {};
  folded.upper = {};
  folded.lower = {};
  folded.factor = {};
  return folded;
}

}  // namespace qeval::quant
