#pragma once

#include <string>
#include <vector>

#include "model/weights.h"
#include "quant/grid/qcfg.h"

namespace qeval::quant {

/// A quantized checkpoint's own grids as points: its weights' codes, and the static ranges that it asks the
/// inputs and outputs of its linear maps to be rounded on.
struct StoredPoints {
  QuantConfig qcfg;
  ActRanges ranges;  ///< of the points whose scales are stored; the others are to be measured
  /// Weights of linear maps of which no codes are stored, or none that integers multiply: 8 bits per channel.
  std::vector<std::string> rounded;
};

/// Of `model`, with `scheme` for what it does not store. One tensor that is rounded at several points has one
/// grid: a norm whose readers share theirs is rounded on it, else to 16 bits. A model that stores neither
/// codes nor ranges, or whose ranges are not static ranges of integers of at most 8 bits, is an Error.
StoredPoints stored_points(const model::Model& model, const Scheme& scheme);

}  // namespace qeval::quant
