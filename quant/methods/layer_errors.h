#pragma once

#include <vector>

#include "quant/methods/quantize.h"

namespace qeval::quant {

/// Per block: how far its output is off when the model computes fake-quantized, Σ (quantized − float)² /
/// Σ float² over all tokens of the samples and all channels of the residual stream. What earlier blocks lost
/// is part of it. `model.base` is the float model, `model.model()` the one that is rounded.
std::vector<double> layer_errors(const QuantizedModel& model, const Samples& samples);

}  // namespace qeval::quant
