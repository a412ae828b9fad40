#include "eval/results/statistics.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "base/parallel.h"

namespace qeval::eval {
namespace {

/// r = Σv / Σw as an aggregation shows it.
double transform_ratio(Aggregation aggregation, double ratio) {
  switch (aggregation) {
    case Aggregation::mean:
      return ratio;
    case Aggregation::perplexity:
      return std::exp(-ratio);
    case Aggregation::bits_per_unit:
      return -ratio / std::numbers::ln2;
  }
  return ratio;
}

}  // namespace

Random::Random(uint64_t seed) : state_{} {
  for (uint64_t& word : state_) {  // SplitMix64
    seed += 0x9e3779b97f4a7c15U;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    word = z ^ (z >> 31);
  }
}

uint64_t Random::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

uint64_t Random::below(uint64_t bound) {
  assert(bound > 0);
  __extension__ using Wide = unsigned __int128;
  const uint64_t unfair =
      (0 - bound) % bound;  // 2^64 mod bound: low halves below it would favour some results
  while (true) {
    const Wide product = static_cast<Wide>(next()) * bound;
    if (static_cast<uint64_t>(product) >= unfair) return static_cast<uint64_t>(product >> 64);
  }
}

double Random::uniform() {
  return static_cast<double>(next() >> 11) * 0x1.0p-53;
}

double sample_standard_deviation(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  if (values.size() < 2) return nan;
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (n - 1));
}

double mean_standard_error(std::span<const DocumentTerm> terms) {
  std::vector<double> values;
  for (const DocumentTerm& term : terms) values.push_back(term.value);
  return sample_standard_deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

double aggregate(Aggregation aggregation, std::span<const DocumentTerm> terms) {
  double values = 0, weights = 0;
  for (const DocumentTerm& term : terms) {
    values += term.value;
    weights += term.weight;
  }
  return transform_ratio(aggregation, values / weights);  // 0/0 is the NaN promised
}

std::vector<double> bootstrap(size_t documents, const BootstrapOptions& options,
                              const std::function<double(std::span<const uint32_t>)>& statistic) {
  assert(documents > 0 && documents <= std::numeric_limits<uint32_t>::max());
  std::vector<double> out(static_cast<size_t>(std::max(options.resamples, 0)));
  parallel_ranges(std::ssize(out), 16, [&](int64_t first, int64_t last) {
    std::vector<uint32_t> drawn(documents);
    for (int64_t i = first; i < last; ++i) {
      // The golden-ratio step of SplitMix64 would make neighbouring seeds overlap: spread them by another odd
      // number.
      Random random(options.seed ^ (static_cast<uint64_t>(i) * 0xd1342543de82ef95U));
      for (uint32_t& index : drawn) index = static_cast<uint32_t>(random.below(documents));
      out[static_cast<size_t>(i)] = statistic(drawn);
    }
  });
  return out;
}

double bootstrap_standard_error(Aggregation aggregation, std::span<const DocumentTerm> terms,
                                const BootstrapOptions& options) {
  return sample_standard_deviation(bootstrap(terms.size(), options, [&](std::span<const uint32_t> drawn) {
    double values = 0, weights = 0;
    for (const uint32_t index : drawn) {
      values += terms[index].value;
      weights += terms[index].weight;
    }
    return transform_ratio(aggregation, values / weights);
  }));
}

double quantile(std::vector<double> values, double q) {
  if (values.empty() || std::ranges::any_of(values, [](double value) { return std::isnan(value); }))
    return nan;
  const double position = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(below));
  const double low = values[below];
  if (below + 1 == values.size()) return low;
  const double high =
      *std::min_element(values.begin() + static_cast<std::ptrdiff_t>(below) + 1, values.end());
  return low + (position - static_cast<double>(below)) * (high - low);
}

double mcnemar_exact(int64_t lost, int64_t gained) {
  assert(lost >= 0 && gained >= 0);
  const int64_t n = lost + gained;
  const int64_t smaller = std::min(lost, gained);
  // P(X = smaller) by logarithms (n may be thousands), the rest of the tail by the ratio of neighbours.
  long double log_term = -static_cast<long double>(n) * std::numbers::ln2_v<long double>;
  for (int64_t i = 1; i <= smaller; ++i) {
    log_term += std::log(static_cast<long double>(n - smaller + i) / static_cast<long double>(i));
  }
  long double term = std::exp(log_term);
  long double tail = term;
  for (int64_t k = smaller; k > 0; --k) {
    term *= static_cast<long double>(k) / static_cast<long double>(n - k + 1);
    tail += term;
  }
  return static_cast<double>(std::min(1.0L, 2 * tail));
}

std::vector<double> holm(std::span<const double> p_values) {
  std::vector<double> out(p_values.begin(), p_values.end());
  std::vector<size_t> order;
  for (size_t i = 0; i < out.size(); ++i) {
    if (!std::isnan(out[i])) order.push_back(i);
  }
  std::ranges::stable_sort(order, {}, [&](size_t i) { return p_values[i]; });
  double running = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const double scaled = static_cast<double>(order.size() - rank) * p_values[order[rank]];
    running = std::max(running, std::min(1.0, scaled));
    out[order[rank]] = running;
  }
  return out;
}

PairedDifference paired_bootstrap(std::span<const PairedTerm> terms, const BootstrapOptions& options) {
  PairedDifference out{nan, {}, nan, static_cast<int64_t>(terms.size()), PairedMethod::bootstrap};
  if (terms.empty()) return out;
  double difference = 0, weight = 0;
  for (const PairedTerm& term : terms) {
    difference += term.other - term.base;  // document by document, so that equal runs give exactly zero
    weight += term.weight;
  }
  out.delta = difference / weight;
  const std::vector<double> deltas = bootstrap(terms.size(), options, [&](std::span<const uint32_t> drawn) {
    double differences = 0, weights = 0;
    for (const uint32_t index : drawn) {
      differences += terms[index].other - terms[index].base;
      weights += terms[index].weight;
    }
    return differences / weights;
  });
  const Interval interval{quantile(deltas, 0.025), quantile(deltas, 0.975)};
  if (std::isnan(interval.low) || std::isnan(out.delta)) return out;
  if (terms.size() > 1) out.interval = interval;
  const auto not_above = std::ranges::count_if(deltas, [](double delta) { return delta <= 0; });
  const auto not_below = std::ranges::count_if(deltas, [](double delta) { return delta >= 0; });
  const double tails =
      2.0 * static_cast<double>(1 + std::min(not_above, not_below)) / static_cast<double>(1 + deltas.size());
  // Of a few documents that all point one way every resample does too, however many are drawn.
  const double signs = std::exp2(1.0 - static_cast<double>(terms.size()));
  out.p_value = std::min(1.0, std::max(tails, signs));
  return out;
}

namespace {

/// Flips of paired answers, as tango_interval has them.
struct Flips {
  double lost = 0, gained = 0, documents = 0;
};

/// q of tango_interval.
double likeliest_loss(const Flips& flips, double delta) {
  const auto& [lost, gained, n] = flips;
  const double linear = (2 * n - gained + lost) * delta - gained - lost;
  const double constant = -lost * delta * (1 - delta);
  const double root = std::sqrt(std::max(0.0, linear * linear - 8 * n * constant));
  // Of the two forms of the same root the one that does not subtract.
  return linear <= 0 ? (root - linear) / (4 * n) : -2 * constant / (root + linear);
}

/// Whether the score statistic of `delta` lies outside ±z.
bool is_refuted(const Flips& flips, double delta, double z) {
  const double n = flips.documents, distance = flips.gained - flips.lost - n * delta;
  return distance * distance > z * z * n * (2 * likeliest_loss(flips, delta) + delta * (1 - delta));
}

/// The largest difference that is not refuted, by halving: above the estimate the statistic only falls.
double upper_end(const Flips& flips, double z) {
  double inside = (flips.gained - flips.lost) / flips.documents, outside = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (inside + outside) / 2;
    (is_refuted(flips, middle, z) ? outside : inside) = middle;
  }
  return inside;
}

}  // namespace

std::optional<Interval> tango_interval(int64_t lost, int64_t gained, int64_t documents, double z) {
  assert(lost >= 0 && gained >= 0 && lost + gained <= documents);
  if (documents < 2) return {};
  const auto l = static_cast<double>(lost), g = static_cast<double>(gained),
             n = static_cast<double>(documents);
  return Interval{-upper_end({g, l, n}, z), upper_end({l, g, n}, z)};
}

PairedDifference paired_proportions(int64_t lost, int64_t gained, int64_t documents) {
  PairedDifference out{nan, {}, nan, documents, PairedMethod::proportions};
  if (documents == 0) return out;
  out.delta = static_cast<double>(gained - lost) / static_cast<double>(documents);
  out.interval = tango_interval(lost, gained, documents);
  out.p_value = mcnemar_exact(lost, gained);
  return out;
}

}  // namespace qeval::eval
