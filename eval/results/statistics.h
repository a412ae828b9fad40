#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace qeval::eval {

/// A value that is not defined: the standard error of one document, the score of an answer that is no number.
inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// How the documents' terms (value v, weight w) become one number. In all of them r = Σv / Σw, in document
/// order.
enum class Aggregation : uint8_t {
  mean,           ///< r
  perplexity,     ///< exp(−r): v a log-likelihood
  bits_per_unit,  ///< −r / ln 2
};

/// One document's part in a metric.
struct DocumentTerm {
  double value = 0;   ///< 0 or 1, a probability mass, or a log-likelihood
  double weight = 1;  ///< 1, words, bytes or tokens
};

struct BootstrapOptions {
  int resamples = 1000;
  uint64_t seed = 1234;
  bool operator==(const BootstrapOptions&) const = default;
};

/// The project's random numbers for statistics: xoshiro256** (Blackman and Vigna, 2018) seeded through
/// SplitMix64. The sequence is part of the result files' meaning (a bootstrap is reproduced from its seed):
/// it must not change.
class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next();
  /// Uniform over 0 … bound − 1 without bias (Lemire 2019); bound > 0.
  uint64_t below(uint64_t bound);
  /// Uniform over [0, 1), 53 bits.
  double uniform();

 private:
  uint64_t state_[4];
};

/// Σ(x − mean)² / (n − 1), square-rooted; NaN for fewer than two values.
double sample_standard_deviation(std::span<const double> values);

/// Sample standard deviation of the values / √n. At least two terms of weight 1.
double mean_standard_error(std::span<const DocumentTerm> terms);

/// The aggregate of the terms; NaN where there are none or they weigh nothing.
double aggregate(Aggregation aggregation, std::span<const DocumentTerm> terms);

/// `statistic` of each resample: the indices of n documents drawn with replacement from n. Resample i has a
/// generator of its own, so the result does not depend on the threads that share the work. `statistic` is
/// called from several threads at once.
std::vector<double> bootstrap(size_t documents, const BootstrapOptions& options,
                              const std::function<double(std::span<const uint32_t>)>& statistic);

/// Standard deviation over bootstrap resamples of the documents.
double bootstrap_standard_error(Aggregation aggregation, std::span<const DocumentTerm> terms,
                                const BootstrapOptions& options);

/// The q-quantile (0 ≤ q ≤ 1) of the values by linear interpolation (Hyndman and Fan's type 7); NaN where
/// there are none or one is NaN.
double quantile(std::vector<double> values, double q);

struct Interval {
  double low = 0, high = 0;
};

/// Two-sided exact McNemar test of paired right/wrong answers: `lost` right → wrong, `gained` wrong → right.
/// Under no difference the smaller is binomial(lost + gained, ½): p = min(1, 2 P(X ≤ min(lost, gained))).
double mcnemar_exact(int64_t lost, int64_t gained);

/// Holm's step-down adjustment (1979): p-values to be compared with the level itself, in the order given. NaN
/// (a test that could not be made) stays NaN and is not counted.
std::vector<double> holm(std::span<const double> p_values);

/// One document's terms in both runs; the weight is the same.
struct PairedTerm {
  double base = 0, other = 0;
  double weight = 1;
};

/// What made interval and p-value of a difference.
enum class PairedMethod : uint8_t {
  proportions,  ///< paired_proportions: Tango's interval, McNemar's test
  bootstrap     ///< paired_bootstrap
};

struct PairedDifference {
  double delta = 0;
  /// 95 %. Absent where there is nothing to make it of: with fewer than two documents, or where one has no
  /// number.
  std::optional<Interval> interval;
  double p_value = 1;  ///< two-sided
  int64_t documents = 0;
  PairedMethod method = PairedMethod::bootstrap;
};

/// Paired bootstrap over documents of the difference of two means (weight 1) or ratios, as the caller defines
/// the terms: delta = (Σ other − Σ base) / Σ weight. The interval are percentiles of the resamples'; p = 2 (1
/// + smaller tail) / (1 + resamples), at least the 2^(1 − documents) that a test of the documents' signs
/// could reach, at most 1. Equal runs give exactly 0, [0, 0] and p = 1. For Δ log-perplexity pass
/// −log-likelihoods with their words, bytes or tokens.
PairedDifference paired_bootstrap(std::span<const PairedTerm> terms, const BootstrapOptions& options = {});

/// The normal distribution's 97.5 % quantile.
inline constexpr double kNormal975 = 1.959963984540054;

/// Tango's score interval (Statistics in Medicine 17, 1998, 891–908) of the difference of two paired
/// proportions, at 95 % or what another z gives. With n documents, of which l are lost (right → wrong) and g
/// gained, it holds every Δ from −1 to 1 whose score statistic
///
///     (g − l − nΔ) / √(n (2q + Δ(1 − Δ)))
///
/// lies within ±z; q, the probability of a loss that is likeliest under Δ, is the larger root of
/// 2n q² + ((2n − g + l) Δ − g − l) q − l Δ(1 − Δ) = 0. At Δ = 0 the statistic is McNemar's. Without flips it
/// is ±z²/(n + z²): not seeing any among n documents does not mean that there are none. Nothing
/// with fewer than two documents.
std::optional<Interval> tango_interval(int64_t lost, int64_t gained, int64_t documents,
                                       double z = kNormal975);

/// The difference of answers that are right or wrong: delta = (gained − lost) / documents, tango_interval,
/// mcnemar_exact. NaN of no documents.
PairedDifference paired_proportions(int64_t lost, int64_t gained, int64_t documents);

}  // namespace qeval::eval
