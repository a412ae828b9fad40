#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/engine/plan.h"

namespace qeval::eval {

/// The distinct places of a document at which something is scored: a place is the sequence of tokens before
/// it. Choices of one token, and the first tokens of all choices, share one.
struct ScoredPositions {
  /// Per request and scored token: its position, counted from 0 in the order of the requests; −1 where an
  /// earlier token of the document stands at the same one.
  std::vector<std::vector<int64_t>> index;
  int64_t count = 0;
};

ScoredPositions scored_positions(std::span<const TokenRequest> requests);

}  // namespace qeval::eval
