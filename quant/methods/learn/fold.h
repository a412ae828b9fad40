#pragma once

#include "quant/grid/quantized_matrix.h"
#include "quant/methods/learn/block.h"

namespace qeval::quant {

/// Makes the learned changes part of the weights (docs/specification.md#methods): transformations are
/// multiplied in, weights (norms' too) clipped to their learned bounds. Plain min-max quantization of the
/// result lands on the learned grid.
void fold_block(const Block<float>& block, const BlockParameters<float>& parameters);

/// The parameters of a folded block: no transformation, no clipping, the same activation grids.
BlockParameters<float> folded_parameters(const BlockParameters<float>& parameters);

/// The grids of a block's weights whose codes are learned (BlockParameters::code).
class CodedWeights {
 public:
  /// As `coded` stores them.
  CodedWeights(const model::Model& coded, const BlockParameters<float>& parameters, int64_t layer);
  /// Keeps the codes within their grids and puts what the nearest ones stand for, factors aside, into the
  /// block's weights. Parallel.
  void apply(BlockParameters<float>& parameters, BlockWeights<float>& weights) const;

 private:
  std::array<QuantizedMatrix, kBlockModules> grids_;  ///< without codes
};

/// What was learned of a weight's codes and of their grids' scales (either may be empty), put into `matrix`.
void take_learned(const Parameter<float>& code, const Parameter<float>& factor, QuantizedMatrix& matrix);

}  // namespace qeval::quant
