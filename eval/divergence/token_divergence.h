#pragma once

#include <cstdint>
#include <span>

#include "eval/results/text_divergence.h"

namespace qeval::eval {

/// A row of logits [vocabulary] and what its softmax needs.
struct LogitRow {
  std::span<const float> logits;
  std::span<const float> probabilities;  ///< softmax(logits)
  double log_sum = 0;                    ///< ln Σ exp(logit)
  int32_t top1 = 0;                      ///< first arg-max
};

/// Fills `probabilities` [vocabulary] and looks at the row. A logit that is not finite makes log_sum so.
LogitRow read_row(std::span<const float> logits, std::span<float> probabilities);

/// The two rows' distributions, `token` being the one that comes. A row against itself gives exactly 0 for
/// both divergences and Δp, and acceptance 1.
TokenDivergence token_divergence(const LogitRow& base, const LogitRow& other, int32_t token);

}  // namespace qeval::eval
