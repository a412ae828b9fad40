#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include "eval/results/statistics.h"

namespace qeval::eval {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

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
