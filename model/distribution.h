#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qeval::model {

/// What is asked of the whole next-token distribution at one row of a batch.
struct DistributionQuery {
  int64_t row = 0;
  /// These tokens, distinct and below the vocabulary's size; or, where `likeliest` is not 0, that many.
  std::span<const int32_t> tokens{};
  int64_t likeliest = 0;
};

/// Some tokens of a distribution one by one, all others as one outcome.
struct Distribution {
  std::vector<int32_t> tokens;           ///< as asked; or the likeliest first, equals by ascending id
  std::vector<float> log_probabilities;  ///< natural logarithm, per token
  double rest = 0;                       ///< probability of all other tokens together
  float rest_minimum = 0;  ///< smallest log-probability among the others; 0 where there are none
};

/// The distribution of softmax(logits), logits [vocabulary] being one row, whose largest value is `max` and
/// whose Σ exp(logit − max) is `sum`, as the decoder adds it up. Uses `logits` as scratch. A function of its
/// arguments alone: the same bits in any batch and thread.
Distribution distribution_of(std::span<float> logits, double max, double sum, const DistributionQuery& query);

}  // namespace qeval::model
