#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace qeval::model {

// What float and integer arithmetic share of choosing experts by their scores (RouteOp).

/// The indices of the `count` largest, of equals the lower ones.
template <typename Score>
std::vector<int32_t> largest(std::span<const Score> scores, int64_t count) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int32_t a, int32_t b) {
    const Score x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  order.resize(static_cast<size_t>(count));
  return order;
}

/// Scores of experts outside the `used` best of so many groups become `hidden`. A group counts by the sum of
/// its `by` best.
template <typename Score>
void hide_groups(int64_t groups, int64_t used, int64_t by, Score hidden, std::span<Score> scores) {
  const int64_t size = std::ssize(scores) / groups;
  std::vector<Score> totals;
  for (int64_t g = 0; g < groups; ++g) {
    const std::span<const Score> own =
        scores.subspan(static_cast<size_t>(g * size), static_cast<size_t>(size));
    Score total = 0;
    for (const int32_t best : largest(own, std::min(by, size))) total += own[static_cast<size_t>(best)];
    totals.push_back(total);
  }
  std::vector<bool> kept(totals.size(), false);
  for (const int32_t g : largest(std::span<const Score>(totals), used)) kept[static_cast<size_t>(g)] = true;
  for (int64_t e = 0; e < std::ssize(scores); ++e) {
    if (!kept[static_cast<size_t>(e / size)]) scores[static_cast<size_t>(e)] = hidden;
  }
}

}  // namespace qeval::model
