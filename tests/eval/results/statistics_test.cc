#include "eval/results/statistics.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <tbb/global_control.h>

namespace qeval::eval {
namespace {

TEST(Random, IsXoshiroSeededBySplitMix) {
  // Computed from the published algorithms in Python's integers.
  Random a(1234), b(0);
  for (const uint64_t expected :
       {0x0bab45d9a0e3ae53U, 0xd7c640660c19433eU, 0xb0dedaa0d09a6691U, 0xdec9f41b58ec86ebU}) {
    EXPECT_EQ(a.next(), expected);
  }
  for (const uint64_t expected : {0x99ec5f36cb75f2b4U, 0xbf6e1f784956452aU, 0x1a5f849d4933e6e0U}) {
    EXPECT_EQ(b.next(), expected);
  }
}

TEST(Random, DrawsEveryNumberBelowTheBoundEquallyOften) {
  Random random(3);
  std::vector<int> seen(7);
  for (int i = 0; i < 70000; ++i) ++seen.at(random.below(7));
  for (const int count : seen) EXPECT_NEAR(count, 10000, 400);  // four standard deviations
  // A bound of ¾ of the range: without the rejection, a third of the numbers would come twice as often.
  constexpr uint64_t bound = 0xc000000000000000U;
  int low_third = 0;
  for (int i = 0; i < 30000; ++i) low_third += random.below(bound) % 3 == 0 ? 1 : 0;
  EXPECT_NEAR(low_third, 10000, 330);
  for (int i = 0; i < 1000; ++i) {
    const double value = random.uniform();
    EXPECT_TRUE(value >= 0 && value < 1);
  }
}

TEST(StandardDeviation, EqualsNumPy) {
  const std::vector<double> values{0.5, -1.25, 3, 7.75, 2};
  EXPECT_NEAR(sample_standard_deviation(values), 3.3939284023090406, 1e-14);  // numpy.std(ddof=1)
  std::vector<DocumentTerm> terms;
  for (const double value : values) terms.push_back({value});
  EXPECT_NEAR(mean_standard_error(terms), 1.5178109236660537, 1e-14);  // scipy.stats.sem
  EXPECT_TRUE(std::isnan(sample_standard_deviation(std::vector<double>{1})));
}

TEST(Quantile, EqualsNumPy) {
  const std::vector<double> values{0.5, -1.25, 3, 7.75, 2, 9, 11.5};
  EXPECT_EQ(quantile(values, 0), -1.25);
  EXPECT_NEAR(quantile(values, 0.025), -0.9875, 1e-14);
  EXPECT_NEAR(quantile(values, 0.1), -0.2, 1e-14);
  EXPECT_EQ(quantile(values, 0.5), 3);
  EXPECT_NEAR(quantile(values, 0.975), 11.125, 1e-14);
  EXPECT_EQ(quantile(values, 1), 11.5);
  EXPECT_EQ(quantile({4}, 0.3), 4);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
  EXPECT_TRUE(std::isnan(quantile({1, nan}, 0.5)));
}

TEST(McNemar, EqualsSciPy) {
  // scipy.stats.binomtest(min(lost, gained), lost + gained, 0.5).pvalue; 25/40 also by statsmodels' exact
  // mcnemar.
  const struct {
    int64_t lost, gained;
    double p;
  } cases[] = {{0, 0, 1},
               {0, 1, 1},
               {5, 0, 0.0625},
               {3, 8, 0.2265625},
               {10, 12, 0.8318119049072266},
               {25, 40, 0.08168153394154003},
               {310, 402, 0.0006386695000365648},
               {5000, 5300, 0.003215819673645259},
               {1, 1000, 9.351301457402253e-299},
               {7, 7, 1}};
  for (const auto& [lost, gained, p] : cases) {
    EXPECT_NEAR(mcnemar_exact(lost, gained) / p, 1, 1e-10) << lost << " " << gained;
    EXPECT_EQ(mcnemar_exact(lost, gained), mcnemar_exact(gained, lost));
  }
}

/// The score statistic of a difference by another method: the likeliest probability of a loss by thirds of
/// the log-likelihood, whose maximum Tango's formula gives as the root of an equation.
double score_statistic(int64_t lost, int64_t gained, int64_t documents, double delta) {
  const auto l = static_cast<double>(lost), g = static_cast<double>(gained),
             n = static_cast<double>(documents);
  const auto part = [](double count, double probability) {
    return count == 0 ? 0 : count * std::log(probability);
  };
  const auto log_likelihood = [&](double q) {
    return part(g, q + delta) + part(l, q) + part(n - l - g, 1 - 2 * q - delta);
  };
  double low = std::max(0.0, -delta), high = (1 - delta) / 2;
  for (int i = 0; i < 200; ++i) {
    const double first = low + (high - low) / 3, second = high - (high - low) / 3;
    (log_likelihood(first) < log_likelihood(second) ? low : high) =
        log_likelihood(first) < log_likelihood(second) ? first : second;
  }
  const double q = (low + high) / 2;
  return (g - l - n * delta) / std::sqrt(n * (2 * q + delta * (1 - delta)));
}

TEST(Tango, EndsWhereTheScoreStatisticSaysSo) {
  // Ends by a program of its own in Python's decimals: the likelihood's maximum by halving its derivative.
  const struct {
    int64_t lost, gained, documents;
    double low, high;
  } cases[] = {{1, 0, 44, -0.11807709698213288, 0.05939323111662797},
               {1, 0, 10, -0.4041500267952385, 0.20528607984917818},
               {8, 4, 30, -0.35322111932676253, 0.098916265578383},
               {3, 8, 150, -0.011742012371300342, 0.08485171116465871},
               {0, 3, 40, -0.019193221287083152, 0.19864233524310546},
               {25, 40, 66, -0.012135014831164513, 0.441870353064626},
               {150, 86, 1600, -0.05899803330569942, -0.021361564754787236},
               {310, 402, 10042, 0.003964105279467221, 0.014397649342602696},
               {1000, 1, 14042, -0.07551815896279698, -0.06700320877442521}};
  for (const auto& [lost, gained, documents, low, high] : cases) {
    SCOPED_TRACE(testing::Message() << lost << " " << gained << " " << documents);
    const Interval interval = tango_interval(lost, gained, documents).value();
    EXPECT_NEAR(interval.low, low, 1e-13);
    EXPECT_NEAR(interval.high, high, 1e-13);
    EXPECT_NEAR(score_statistic(lost, gained, documents, interval.low), 1.959964, 1e-5);
    EXPECT_NEAR(score_statistic(lost, gained, documents, interval.high), -1.959964, 1e-5);
    const Interval mirrored = tango_interval(gained, lost, documents).value();
    EXPECT_EQ(mirrored.low, -interval.high);
    EXPECT_EQ(mirrored.high, -interval.low);
  }
}

TEST(Tango, HasAWidthWithoutFlipsAndWithNothingElse) {
  constexpr double z2 = 1.959963984540054 * 1.959963984540054;
  for (const int64_t n : {2, 30, 10042}) {
    const double bound = z2 / (static_cast<double>(n) + z2);  // by hand from q = 0, and q = (1 − Δ)/2
    const Interval none = tango_interval(0, 0, n).value(), all = tango_interval(n, 0, n).value();
    EXPECT_NEAR(none.low, -bound, 1e-13);
    EXPECT_NEAR(none.high, bound, 1e-13);
    EXPECT_EQ(all.low, -1);
    EXPECT_NEAR(all.high, 2 * bound - 1, 1e-11);  // 1 + Δ cancels
  }
  EXPECT_FALSE(tango_interval(0, 0, 0));
  EXPECT_FALSE(tango_interval(1, 0, 1)) << "one document proves nothing";
}

TEST(PairedProportions, CountFlipsByMcNemarAndTango) {
  const PairedDifference result = paired_proportions(8, 4, 30);
  EXPECT_DOUBLE_EQ(result.delta, -4.0 / 30);
  EXPECT_EQ(result.p_value, mcnemar_exact(8, 4));
  EXPECT_EQ(result.interval.value().low, tango_interval(8, 4, 30).value().low);
  EXPECT_EQ(paired_proportions(0, 0, 30).p_value, 1);
  EXPECT_EQ(paired_proportions(1, 0, 1).delta, -1);
  EXPECT_FALSE(paired_proportions(1, 0, 1).interval);
  EXPECT_TRUE(std::isnan(paired_proportions(0, 0, 0).delta));
}

/// 2,000 experiments of 60 documents of which 4 % are lost and 2 % gained: the percentile bootstrap, which
/// this interval replaced, held the true difference in 89 % of them.
TEST(Tango, CoversTheTruthAsOftenAsItSays) {
  Random random(7);
  int covered = 0;
  constexpr int experiments = 2000;
  for (int i = 0; i < experiments; ++i) {
    int64_t lost = 0, gained = 0;
    for (int d = 0; d < 60; ++d) {
      const double drawn = random.uniform();
      lost += drawn < 0.04 ? 1 : 0;
      gained += drawn >= 0.04 && drawn < 0.06 ? 1 : 0;
    }
    const Interval interval = tango_interval(lost, gained, 60).value();
    covered += interval.low <= -0.02 && -0.02 <= interval.high ? 1 : 0;
  }
  EXPECT_NEAR(covered, 0.955 * experiments, 0.02 * experiments);
}

TEST(Holm, EqualsStatsmodels) {
  // statsmodels multipletests(method="holm").
  const auto adjusted = holm(std::vector{0.01, 0.04, 0.03, 0.005, 0.5});
  const std::vector<double> expected{0.04, 0.09, 0.09, 0.025, 0.5};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-15);
  const auto capped = holm(std::vector{0.2, 0.9, 0.6});
  EXPECT_NEAR(capped[0], 0.6, 1e-15);
  EXPECT_EQ(capped[1], 1);
  EXPECT_EQ(capped[2], 1);
  const auto gap = holm(std::vector{0.02, nan, 0.03});
  EXPECT_NEAR(gap[0], 0.04, 1e-15);
  EXPECT_TRUE(std::isnan(gap[1]));
  EXPECT_NEAR(gap[2], 0.04, 1e-15);
  EXPECT_TRUE(holm({}).empty());
}

TEST(Bootstrap, DoesNotDependOnThreads) {
  std::vector<DocumentTerm> terms;
  Random random(1);
  for (int i = 0; i < 300; ++i) terms.push_back({-50 * random.uniform(), 1 + 9 * random.uniform()});
  const double many = bootstrap_standard_error(Aggregation::perplexity, terms, {500, 9});
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  EXPECT_EQ(bootstrap_standard_error(Aggregation::perplexity, terms, {500, 9}), many);
}

TEST(Bootstrap, AgreesWithTheClosedFormOfAMean) {
  std::vector<DocumentTerm> terms;
  Random random(2);
  for (int i = 0; i < 400; ++i) terms.push_back({random.uniform() < 0.3 ? 1.0 : 0.0});
  const double exact = mean_standard_error(terms);
  EXPECT_NEAR(bootstrap_standard_error(Aggregation::mean, terms, {4000, 1}) / exact, 1, 0.05);
}

TEST(Bootstrap, ResamplesDifferFromOneAnotherAndFromOtherSeeds) {
  const auto first = [](std::span<const uint32_t> drawn) {
    return static_cast<double>(drawn[0] * 1000 + drawn[1]);
  };
  const auto a = bootstrap(500, {200, 1}, first), b = bootstrap(500, {200, 2}, first);
  EXPECT_NE(a, b);
  int repeated = 0;
  for (size_t i = 1; i < a.size(); ++i) repeated += a[i] == a[i - 1] ? 1 : 0;
  EXPECT_LE(repeated, 1);
}

TEST(PairedBootstrap, EqualRunsGiveExactlyNothing) {
  std::vector<PairedTerm> terms;
  Random random(4);
  for (int i = 0; i < 50; ++i) {
    const double value = 100 * random.uniform() - 30;
    terms.push_back({value, value, 1 + random.uniform()});
  }
  const PairedDifference result = paired_bootstrap(terms);
  EXPECT_EQ(result.delta, 0);
  EXPECT_EQ(result.interval.value().low, 0);
  EXPECT_EQ(result.interval.value().high, 0);
  EXPECT_EQ(result.p_value, 1);
  EXPECT_EQ(result.documents, 50);
}

TEST(PairedBootstrap, FindsAClearDifferenceAndHandlesTheEdges) {
  std::vector<PairedTerm> terms;
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    const double base = random.uniform();
    terms.push_back({base, base + 0.1 + 0.01 * random.uniform(), 2});
  }
  const PairedDifference result = paired_bootstrap(terms);
  EXPECT_NEAR(result.delta, 0.0525, 0.001);
  EXPECT_GT(result.interval.value().low, 0.05);
  EXPECT_LT(result.interval.value().high, 0.055);
  EXPECT_NEAR(result.p_value, 2.0 / 1001, 1e-15) << "the smallest that 1000 resamples can tell";
  EXPECT_TRUE(std::isnan(paired_bootstrap({}).delta));
  const PairedDifference one = paired_bootstrap(std::vector<PairedTerm>{{1, 3}});
  EXPECT_EQ(one.delta, 2);
  EXPECT_FALSE(one.interval) << "every resample is the same document";
  EXPECT_EQ(one.p_value, 1) << "one document proves nothing";
  const PairedDifference five = paired_bootstrap(std::vector<PairedTerm>(5, {1, 3}));
  EXPECT_EQ(five.p_value, 1.0 / 16) << "what a test of five signs could reach";
  const PairedDifference broken = paired_bootstrap(std::vector<PairedTerm>{{1, nan}, {1, 1}});
  EXPECT_TRUE(std::isnan(broken.delta) && !broken.interval && std::isnan(broken.p_value));
}

TEST(PairedBootstrap, IntervalCoversTheTruthAsOftenAsItSays) {
  // 400 experiments of 80 documents of unequal length; the true difference is 0.05 per unit of weight. A 95 %
  // interval must hold it in about 380 (bootstrap percentiles run a little short at this size).
  Random random(6);
  int covered = 0, rejected = 0;
  constexpr int experiments = 400;
  for (int i = 0; i < experiments; ++i) {
    std::vector<PairedTerm> terms;
    for (int d = 0; d < 80; ++d) {
      const double weight = 5 + 20 * random.uniform(), base = 3 * weight * random.uniform();
      double noise = -6;  // nearly normal: twelve uniforms
      for (int k = 0; k < 12; ++k) noise += random.uniform();
      terms.push_back({base, base + weight * 0.05 + noise, weight});
    }
    const PairedDifference result = paired_bootstrap(terms, {400, static_cast<uint64_t>(i)});
    const Interval interval = result.interval.value();
    covered += interval.low <= 0.05 && 0.05 <= interval.high ? 1 : 0;
    for (PairedTerm& term : terms) term.other -= 0.05 * term.weight;
    rejected += paired_bootstrap(terms, {400, static_cast<uint64_t>(i)}).p_value < 0.05 ? 1 : 0;
  }
  EXPECT_NEAR(covered, 0.945 * experiments, 0.03 * experiments);
  EXPECT_NEAR(rejected, 0.05 * experiments, 0.03 * experiments);
}

}  // namespace
}  // namespace qeval::eval
