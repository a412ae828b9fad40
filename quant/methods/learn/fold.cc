#include "quant/methods/learn/fold.h"

#include <algorithm>

#include "quant/grid/stored_codes.h"
#include "quant/methods/learn/block_pass.h"

namespace qeval::quant {
namespace {

void fold_weight(const TransformedWeight<float>& weight, const QuantSpec& spec,
                 const Clipping<float>& clipping, float* stored) {
  const WeightGrids<float> grids = weight_grids(weight, spec, clipping);
  parallel_ranges(weight.rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      float* row = stored + r * weight.cols;
      weight.row(r, row);  // where nothing changes it, it is there
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

CodedWeights::CodedWeights(const model::Model& coded, const BlockParameters<float>& parameters,
                           int64_t layer) {
  for (size_t m = 0; m < grids_.size(); ++m) {
    if (parameters.code[m].value.empty()) continue;
    const model::LayerWeights& weights = coded.layers[static_cast<size_t>(layer)];
    grids_[m] = quantized_weight(weights.linears.at(static_cast<Module>(m)).weight, parameters.codes[m]);
    grids_[m].codes = AlignedBuffer();
  }
}

void CodedWeights::apply(BlockParameters<float>& parameters, BlockWeights<float>& weights) const {
  for (size_t m = 0; m < grids_.size(); ++m) {
    std::vector<float>& code = parameters.code[m].value;
    if (code.empty()) continue;
    const QuantizedMatrix& grids = grids_[m];
    const CodeLimits limits = code_limits(grids.spec.bits, grids.spec.symmetric);
    const auto least = static_cast<float>(limits.q_min - grids.code_offset());
    const auto most = static_cast<float>(limits.q_max - grids.code_offset());
    float* out = weights.linear(static_cast<Module>(m)).weight;
    parallel_ranges(grids.rows, kRowsPerTask, [&](int64_t first, int64_t last) {
      for (int64_t j = first * grids.cols; j < last * grids.cols; j += grids.group) {
        const auto grid = static_cast<size_t>(grids.grid_index(j / grids.cols, j % grids.cols));
        const float scale = grids.scales[grid];
        const auto zero = static_cast<float>(grids.zero_points[grid]);
        float* c = code.data() + j;
        for (int64_t i = 0; i < grids.group; ++i) {
          c[i] = std::min(std::max(c[i], least), most);
          out[j + i] = (std::nearbyint(c[i]) - zero) * scale;
        }
      }
    });
  }
}

void take_learned(const Parameter<float>& code, const Parameter<float>& factor, QuantizedMatrix& matrix) {
  std::ranges::transform(code.value, matrix.codes.as<int8_t>(),
                         [](float c) { return static_cast<int8_t>(std::nearbyint(c)); });
  for (size_t i = 0; i < factor.value.size(); ++i)
    matrix.scales[i] = std::clamp(matrix.scales[i] * factor.value[i], kMinScale, kMaxScale);
}

BlockParameters<float> folded_parameters(const BlockParameters<float>& parameters) {
  BlockParameters<float> folded = parameters;
  folded.let = {};
  folded.upper = {};
  folded.lower = {};
  folded.factor = {};
  folded.code = {};
  return folded;
}

}  // namespace qeval::quant
