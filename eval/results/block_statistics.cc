#include "eval/results/block_statistics.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace qeval::eval {
namespace {

/// The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's method.
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr int kMost = 10'000;
  const auto safe = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1, d = 1 / safe(1 - (a + b) * x / (a + 1)), fraction = d;
  for (int m = 1; m < kMost; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / safe(1 + even * d);
    c = safe(1 + even / c);
    fraction *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / safe(1 + odd * d);
    c = safe(1 + odd / c);
    fraction *= d * c;
    if (std::abs(d * c - 1) < 1e-15) break;
  }
  return fraction;
}

/// I_x(a, b).
double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                   : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double normal_probability(double z) {
  return 0.5 * std::erfc(-z / std::sqrt(2.0));
}

/// Half the width of the interval in standard errors.
double reach(double level, size_t blocks) {
  return student_quantile(0.5 + level / 2, static_cast<double>(blocks - 1));
}

}  // namespace

double student_probability(double t, double degrees) {
  if (std::isinf(degrees)) return normal_probability(t);
  const double tail = 0.5 * incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t));
  return t > 0 ? 1 - tail : tail;
}

double student_quantile(double q, double degrees) {
  assert(q > 0 && q < 1 && degrees > 0);
  if (q < 0.5) return -student_quantile(1 - q, degrees);
  double low = 0, high = 1;
  while (student_probability(high, degrees) < q) high *= 2;
  while (true) {
    const double middle = low + (high - low) / 2;
    if (middle == low || middle == high) return middle;
    (student_probability(middle, degrees) < q ? low : high) = middle;
  }
}

Estimate block_mean(std::span<const BlockSum> blocks, double level) {
  double sum = 0;
  int64_t tokens = 0;
  for (const BlockSum& block : blocks) {
    sum += block.sum;
    tokens += block.tokens;
  }
  if (tokens == 0) return {std::numeric_limits<double>::quiet_NaN(), {}, {}};
  const auto n = static_cast<double>(tokens);
  Estimate out{sum / n, {}, {}};
  if (blocks.size() < 2) return out;
  double squares = 0;
  for (const BlockSum& block : blocks) {
    const double residual = block.sum - out.value * static_cast<double>(block.tokens);
    squares += residual * residual;
  }
  const auto count = static_cast<double>(blocks.size());
  out.standard_error = std::sqrt(count / (count - 1) * squares) / n;
  const double half = reach(level, blocks.size()) * *out.standard_error;
  out.interval = Interval{out.value - half, out.value + half};
  return out;
}

Estimate positive_block_mean(std::span<const BlockSum> blocks, double level) {
  Estimate out = block_mean(blocks, level);
  if (!out.interval) return out;
  if (out.value > 0) {
    const double factor = std::exp(reach(level, blocks.size()) * *out.standard_error / out.value);
    out.interval = Interval{out.value / factor, out.value * factor};
  } else {
    out.interval = Interval{out.value, out.value};
  }
  return out;
}

}  // namespace qeval::eval
