#pragma once

#include "model/config.h"

namespace qeval::eval {

/// What the parts of a forward pass cost, in operations or in seconds.
struct TokenCosts {
  double token = 0;    ///< every token: the products of all blocks
  double context = 0;  ///< on top, for every token that it attends to, itself included
  double scored = 0;   ///< every scored position: the output head

  /// Tokens at positions [first, last) of a sequence, without the head.
  double tokens(double first, double last) const {
    return (last - first) * token + (last * (last + 1) - first * (first + 1)) / 2 * context;
  }
};

/// Operations, counted from the shapes: 2 per weight and token; attention's are 4 per channel of the heads
/// and token attended to.
TokenCosts token_costs(const model::ModelConfig& config);

/// A forward pass that was timed.
struct TimedPass {
  double tokens = 0;  ///< of one sequence, from its start
  double scored = 0;
  double seconds = 0;
};

/// Seconds: `operations` with a rate for matrix products and one for attention, fitted to a short pass and a
/// longer one. Where the longer one shows no cost of attention, that is 0.
TokenCosts fit_costs(const TokenCosts& operations, const TimedPass& brief, const TimedPass& longer);

}  // namespace qeval::eval
