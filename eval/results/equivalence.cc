#include "eval/results/equivalence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "eval/results/block_statistics.h"
#include "eval/results/statistics.h"

namespace qeval::eval {
namespace {

/// z(97.5 %) √ψ + z(80 %) √(ψ − δ²): what δ √n must reach.
double needed(double loss, double flips) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  static const double test = student_quantile(1 - kLevel / 2, kInfinite),
                      chance = student_quantile(kPower, kInfinite);
  const double share = std::max(flips, loss);
  return test * std::sqrt(share) + chance * std::sqrt(std::max(0.0, share - loss * loss));
}

}  // namespace

double detectable_loss(int64_t documents, double flips) {
  const double root = std::sqrt(static_cast<double>(documents));
  if (root < needed(1, flips)) return 1;
  double low = 0, high = 1;  // δ √n − needed(δ) crosses 0 once
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (middle * root < needed(middle, flips) ? low : high) = middle;
  }
  return high;
}

int64_t documents_to_detect(double loss, double flips) {
  const double root = needed(loss, flips) / loss;
  return static_cast<int64_t>(std::ceil(root * root));
}

bool equivalent(int64_t lost, int64_t gained, int64_t documents, double margin) {
  static const double z = student_quantile(1 - kLevel, std::numeric_limits<double>::infinity());
  const auto interval = tango_interval(lost, gained, documents, z);
  return interval && -margin < interval->low && interval->high < margin;
}

}  // namespace qeval::eval
