#include "eval/engine/scored_positions.h"

#include <algorithm>

namespace qeval::eval {

ScoredPositions scored_positions(std::span<const TokenRequest> requests) {
  ScoredPositions out;
  for (size_t r = 0; r < requests.size(); ++r) {
    const TokenRequest& request = requests[r];
    const int64_t first = std::ssize(request.tokens) - request.scored;  // tokens before the first scored one
    std::vector<bool> known(static_cast<size_t>(request.scored));
    for (size_t earlier = 0; earlier < r; ++earlier) {
      const TokenRequest& other = requests[earlier];
      const int64_t size = std::ssize(other.tokens);
      const int64_t shared = std::ranges::mismatch(request.tokens, other.tokens).in1 - request.tokens.begin();
      // Lengths of common prefixes after which both score.
      const int64_t begin = std::max(first, size - other.scored);
      const int64_t end = std::min({shared + 1, size, first + request.scored});
      for (int64_t length = begin; length < end; ++length) known[static_cast<size_t>(length - first)] = true;
    }
    std::vector<int64_t>& index = out.index.emplace_back();
    for (const bool seen : known) index.push_back(seen ? -1 : out.count++);
  }
  return out;
}

}  // namespace qeval::eval
