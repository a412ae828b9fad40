#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "eval/results/statistics.h"

namespace qeval::eval {

/// The q-quantile of Student's t with `degrees` > 0 degrees of freedom, 0 < q < 1; of the normal distribution
/// for infinitely many.
double student_quantile(double q, double degrees);
/// P(T ≤ t) of Student's t.
double student_probability(double t, double degrees);

/// A figure with its error; absent where there are fewer than two blocks.
struct Estimate {
  double value = 0;
  std::optional<double> standard_error;
  std::optional<Interval> interval;  ///< 95 %
};

/// What a block of neighbouring tokens adds up to.
struct BlockSum {
  double sum = 0;      ///< of the figure, over the block's tokens
  int64_t tokens = 0;  ///< at least 1
};

/// Σ sums / Σ tokens, for tokens that are not independent within a block: with G blocks, r_g = sum_g − mean ·
/// tokens_g and n tokens, the standard error is √(G/(G−1) · Σ r_g²) / n (the sandwich estimator by clusters,
/// Liang and Zeger 1986), and the interval that of Student's t with G − 1 degrees of freedom at `level`.
Estimate block_mean(std::span<const BlockSum> blocks, double level = 0.95);

/// The same for a figure that cannot be negative and has a long tail to the right, like a divergence: the
/// interval is of its logarithm, [m/f, m·f] with f = exp(t · standard error / m). A mean of 0 is exact.
Estimate positive_block_mean(std::span<const BlockSum> blocks, double level = 0.95);

/// `estimate` seen through an increasing function with this derivative at its value (delta method); the
/// interval's ends are mapped themselves.
template <typename Map>
Estimate mapped(const Estimate& estimate, double derivative, const Map& map) {
  Estimate out{map(estimate.value), {}, {}};
  if (estimate.standard_error) out.standard_error = *estimate.standard_error * derivative;
  if (estimate.interval) out.interval = Interval{map(estimate.interval->low), map(estimate.interval->high)};
  return out;
}

}  // namespace qeval::eval
