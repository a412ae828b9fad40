#pragma once

#include "model/config.h"

namespace qeval::eval {

/// What parts of a forward pass cost beside one another, in operations of a matrix product that take as long.
struct TokenCosts {
  double token = 0;    ///< every token: the products of all blocks
  double context = 0;  ///< on top, for every token that it attends to, itself included
  double scored = 0;   ///< every scored position: the output head

  /// Tokens at positions [first, last) of a sequence, without the head.
  double tokens(double first, double last) const {
    return (last - first) * token + (last * (last + 1) - first * (first + 1)) / 2 * context;
  }
};

/// Counted from the shapes: 2 operations per weight and token; attention's, which are 4 per channel of the
/// heads and token attended to, run slower than products (docs/scaling.md has the measurement).
TokenCosts token_costs(const model::ModelConfig& config);

}  // namespace qeval::eval
