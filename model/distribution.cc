#include "model/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

constexpr int64_t kTile = 256;  // as short as the head's: float sums within, double across
constexpr float kExcluded = std::numeric_limits<float>::lowest();  // exp() of it is 0 beside any logit

struct Candidate {
  float logit;
  int32_t token;
};

/// The `count` largest logits, largest first, equals by ascending token. One pass that keeps what exceeds the
/// count-th largest so far: few do.
std::vector<int32_t> likeliest_tokens(std::span<const float> logits, int64_t count) {
  const auto keep = static_cast<size_t>(std::min<int64_t>(count, std::ssize(logits)));
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  std::vector<Candidate> best;
  best.reserve(4 * keep);
  float threshold = -std::numeric_limits<float>::infinity();
  const auto cut = [&] {
    if (best.size() <= keep) return;
    const auto last = best.begin() + static_cast<std::ptrdiff_t>(keep);
    std::ranges::nth_element(best, last - 1, before);
    best.erase(last, best.end());
    // A later token with the same logit would come after this one.
    threshold = best.back().logit;
  };
  for (size_t token = 0; token < logits.size(); ++token) {
    if (!(logits[token] > threshold)) continue;
    best.push_back({logits[token], static_cast<int32_t>(token)});
    if (best.size() == 4 * keep) cut();
  }
  cut();
  std::ranges::sort(best, before);
  std::vector<int32_t> tokens;
  tokens.reserve(best.size());
  for (const Candidate& candidate : best) tokens.push_back(candidate.token);
  return tokens;
}

}  // namespace

Distribution distribution_of(std::span<float> logits, double max, double sum,
                             const DistributionQuery& query) {
  Distribution out;
  if (query.likeliest > 0) {
    out.tokens = likeliest_tokens(logits, query.likeliest);
  } else {
    out.tokens.assign(query.tokens.begin(), query.tokens.end());
  }
  const double log_sum = std::log(sum);
  const auto log_probability = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - max - log_sum);
  };
  for (const int32_t token : out.tokens) {
    float& logit = logits[static_cast<size_t>(token)];
    out.log_probabilities.push_back(log_probability(logit));
    logit = kExcluded;
  }
  if (out.tokens.size() == logits.size()) return out;
  // Added up over the others, not taken as 1 − Σ: the difference of nearly equal numbers would be noise.
  float minimum = std::numeric_limits<float>::infinity();
  for (const float logit : logits) minimum = logit != kExcluded && logit < minimum ? logit : minimum;
  double rest = 0;
  for (int64_t first = 0; first < std::ssize(logits); first += kTile) {
    const LogitTile tile =
        kernels().logit_tile(logits.data() + first, std::min(kTile, std::ssize(logits) - first));
    rest += static_cast<double>(tile.sum) * std::exp(static_cast<double>(tile.max) - max);
  }
  out.rest = rest / sum;
  out.rest_minimum = log_probability(minimum);
  return out;
}

}  // namespace qeval::model
