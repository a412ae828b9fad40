#include "eval/divergence/token_divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/kernels/kernels.h"

namespace qeval::eval {

LogitRow read_row(std::span<const float> logits, std::span<float> probabilities) {
  const auto n = static_cast<int64_t>(logits.size());
  const model::LogitTile tile = model::kernels().logit_tile(logits.data(), n);
  std::ranges::copy(logits, probabilities.begin());
  model::kernels().softmax(probabilities.data(), n, 1.0F);
  // The kernel's sum is in float; that of the differences below takes its error twice.
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - tile.max));
  const bool finite = std::isfinite(tile.max) && std::isfinite(sum);
  return {logits, probabilities,
          finite ? static_cast<double>(tile.max) + std::log(sum) : std::numeric_limits<double>::quiet_NaN(),
          tile.arg_max};
}

TokenDivergence token_divergence(const LogitRow& base, const LogitRow& other, int32_t token) {
  constexpr size_t kLanes = 4;  // sums that do not wait for one another
  const double shift = base.log_sum - other.log_sum;
  double kl[kLanes] = {}, reverse[kLanes] = {}, distance[kLanes] = {};
  const size_t n = base.logits.size();
  const auto add = [&](size_t i, size_t lane) {
    const double p = static_cast<double>(base.probabilities[i]);
    const double q = static_cast<double>(other.probabilities[i]);
    const double ratio =
        static_cast<double>(base.logits[i]) - static_cast<double>(other.logits[i]) - shift;  // ln p/q
    kl[lane] += p * ratio;
    reverse[lane] -= q * ratio;
    distance[lane] += std::abs(p - q);
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (; i < n; ++i) add(i, 0);
  const auto total = [](const double* lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); };
  const auto at = static_cast<size_t>(token);
  TokenDivergence out;
  out.base_nll = base.log_sum - static_cast<double>(base.logits[at]);
  out.nll = other.log_sum - static_cast<double>(other.logits[at]);
  // Both are at least 0; a rounding error below is none of the model's.
  out.kl = std::max(0.0, total(kl));
  out.reverse_kl = std::max(0.0, total(reverse));
  out.acceptance = 1 - 0.5 * total(distance);
  out.p_difference = std::exp(-out.nll) - std::exp(-out.base_nll);
  out.same_top = base.top1 == other.top1;
  return out;
}

}  // namespace qeval::eval
