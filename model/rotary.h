#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace qeval::model {

/// Cosines and sines of the rotary embedding for positions 0 … positions − 1, computed in float32 as the
/// reference implementations do (inverse frequencies are float32 whatever the weights' type). Immutable after
/// construction.
class RotaryTable {
 public:
  /// For sequences of `length` tokens, where the scaling depends on it (Rotary::length_class).
  RotaryTable(const Rotary& rotary, int64_t positions, int64_t length = 0);

  int64_t half() const { return half_; }
  int64_t positions() const { return positions_; }
  /// `half()` values each.
  const float* cosines(int64_t position) const { return values_.data() + position * 2 * half_; }
  const float* sines(int64_t position) const { return values_.data() + position * 2 * half_ + half_; }

 private:
  int64_t half_, positions_;
  std::vector<float> values_;
};

/// What a row is multiplied by behind the rotation, where op.position_beta is not 0.
float position_factor(const RotateOp& op, int64_t position);

/// Inverse frequencies [dim / 2] with the scaling applied (docs/architectures.md#rotary), of a
/// sequence of `length` tokens.
std::vector<float> rotary_frequencies(const Rotary& rotary, int64_t length = 0);

}  // namespace qeval::model
