#pragma once

#include "quant/methods/learn/block.h"

namespace qeval::quant {

/// Makes the learned changes part of the weights (docs/specification.md#methods): transformations are
/// multiplied in, weights (norms' too) clipped to their learned bounds. Plain min-max quantization of the
/// result lands on the learned grid.
void fold_block(const Block<float>& block, const BlockParameters<float>& parameters);

/// The parameters of a folded block: no transformation, no clipping, the same activation grids.
BlockParameters<float> folded_parameters(const BlockParameters<float>& parameters);

}  // namespace qeval::quant
