#include "eval/results/compare.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "eval/results/sample_file.h"
#include "tests/eval/result_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string refusal(const std::vector<Scores>& base, const std::vector<Scores>& other) {
  try {
    compare_documents("arc", base, other);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Compare, ARunAgainstItselfIsExactlyZero) {
  std::vector<Scores> pages;
  Random random(8);
  for (int64_t i = 0; i < 40; ++i)
    pages.push_back(rolling_sample(i, -1000 * random.uniform(), 100 + i, 600, 130).scores);
  for (const auto& run : {scores_of(choice_samples(20)), pages}) {
    const TaskComparison result = compare_documents("t", run, run);
    EXPECT_EQ(result.documents, std::ssize(run));
    EXPECT_EQ(result.metrics.size(), run[0].metrics.size());
    for (const MetricComparison& metric : result.metrics) {
      EXPECT_EQ(metric.base, metric.other);
      EXPECT_EQ(metric.difference.delta, 0);
      const Interval interval = metric.difference.interval.value();
      EXPECT_EQ(interval.low, -interval.high);
      EXPECT_EQ(interval.high > 0, metric.right_or_wrong) << "20 answers without flips do not rule them out";
      EXPECT_EQ(metric.difference.p_value, 1);
      EXPECT_TRUE(metric.lost.empty() && metric.gained.empty());
    }
  }
}

TEST(Compare, CountsFlipsBothWaysAndTestsThem) {
  auto base = scores_of(choice_samples(12));  // acc: all right; acc_norm: all wrong
  auto other = base;
  for (const size_t i : {1, 4, 5, 7, 9, 10}) other[i].answers[0].log_likelihood = -1;  // wrong now
  base[3].answers[0].log_likelihood = -1;                                              // was wrong
  const TaskComparison result = compare_documents("arc", base, other);
  const MetricComparison& acc = result.metrics[0];
  EXPECT_EQ(acc.metric, "acc");
  EXPECT_THAT(acc.lost, ElementsAre(1, 4, 5, 7, 9, 10));
  EXPECT_THAT(acc.gained, ElementsAre(3));
  EXPECT_NEAR(acc.base, 11.0 / 12, 1e-15);
  EXPECT_NEAR(acc.other, 6.0 / 12, 1e-15);
  EXPECT_NEAR(acc.difference.delta, -5.0 / 12, 1e-15);
  EXPECT_NEAR(acc.difference.p_value, 0.125, 1e-12);  // 2 (1 + 7) / 2^7
  EXPECT_EQ(acc.difference.interval.value().low, tango_interval(6, 1, 12).value().low);
}

TEST(Compare, PerplexityDifferencesAreLogarithmic) {
  std::vector<Scores> base, other;
  for (int64_t i = 0; i < 6; ++i) {
    base.push_back(rolling_sample(i, -300.0 - static_cast<double>(i), 100, 500, 150).scores);
    other.push_back(rolling_sample(i, -310.0 - 2 * static_cast<double>(i), 100, 500, 150).scores);
  }
  const TaskComparison result = compare_documents("wikitext", base, other);
  const double words = 600, difference = 60 + 15;
  EXPECT_NEAR(result.metrics[0].difference.delta, difference / words, 1e-12);
  EXPECT_NEAR(result.metrics[0].difference.delta, std::log(result.metrics[0].other / result.metrics[0].base),
              1e-12);
  EXPECT_EQ(result.metrics[2].metric, "bits_per_byte");
  EXPECT_NEAR(result.metrics[2].difference.delta, result.metrics[2].other - result.metrics[2].base, 1e-12);
  EXPECT_GT(result.metrics[0].difference.interval.value().low, 0) << "worse in every document";
  EXPECT_EQ(result.metrics[0].difference.method, PairedMethod::bootstrap);
}

TEST(Compare, RefusesWhatIsNotTheSameMeasurement) {
  const auto base = scores_of(choice_samples(3));
  auto other = base;
  other.pop_back();
  EXPECT_THAT(refusal(base, other), HasSubstr("document 2 is in the first only"));
  EXPECT_THAT(refusal(other, base), HasSubstr("document 2 is in the second only"));
  other = base;
  other[1].doc_id = 7;
  EXPECT_THAT(refusal(base, other), HasSubstr("document 1 is in the first only"));
  other = base;
  other[1].token_hash = "0";
  EXPECT_THAT(refusal(base, other), HasSubstr("document 1 was scored from different token ids"));
  other = base;
  other[2].facts.gold = {0};
  EXPECT_THAT(refusal(base, other), HasSubstr("document 2"));
  std::vector<Scores> pages{rolling_sample(0, -1, 2, 3, 4).scores};
  auto windows = pages;
  windows[0].answers[0].windows = 1;
  EXPECT_THAT(refusal(pages, windows), HasSubstr("windows"));
  EXPECT_TRUE(compare_documents("arc", {}, {}).metrics.empty());
}

/// Tasks of one group may have metrics besides: winogrande has acc alone, arc_easy has acc_norm too, and
/// their group averages acc.
TEST(Compare, AGroupComparesWhatItAverages) {
  const auto lengths = scores_of(choice_samples(6));
  auto plain = scores_of(choice_samples(4));
  for (Scores& scores : plain) scores.metrics = {"acc"};
  auto worse = plain;
  worse[1].answers[0].log_likelihood = -1;
  const GroupResults group{"both", {"a", "b"}, {{"acc", 1, {}}, {"acc_unweighted", 1, {}}}, 10};
  const std::vector<std::vector<Scores>> base{lengths, plain}, other{lengths, worse};
  const TaskComparison result = compare_group(group, base, other);
  EXPECT_EQ(result.documents, 10);
  ASSERT_EQ(result.metrics.size(), 1U);
  EXPECT_EQ(result.metrics[0].metric, "acc");
  EXPECT_NEAR(result.metrics[0].difference.delta, -0.1, 1e-15);

  const std::vector<std::vector<Scores>> unlike{lengths, {rolling_sample(0, -1, 2, 3, 4).scores}};
  EXPECT_THAT(message_of([&] { compare_group(group, unlike, unlike); }),
              HasSubstr("measure different things"));
}

/// The headline of an unweighted group is the mean of its tasks' means, each document counting 1/n of its
/// task; the pooled mean was tested in its place.
TEST(Compare, AnUnweightedGroupIsTestedByTheMeanOfItsTasks) {
  Random random(3);
  std::vector<std::vector<Scores>> base, other;
  double variance = 0, mean = 0;
  for (const int64_t n : {600, 150}) {
    base.push_back(scores_of(choice_samples(n)));
    other.push_back(base.back());
    double lost = 0;
    for (Scores& scores : other.back()) {
      if (random.uniform() > 0.2) continue;
      scores.answers[0].log_likelihood = -1;  // wrong now
      ++lost;
    }
    const auto count = static_cast<double>(n);
    mean -= lost / count / 2;
    variance += lost / count * (1 - lost / count) / count / 4;
  }
  GroupResults group{"both", {"a", "b"}, {{"acc", 1, {}}, {"acc_unweighted", 1, {}}}, 750, false};
  const TaskComparison result = compare_group(group, base, other);
  ASSERT_EQ(result.metrics.size(), 2U);
  const MetricComparison& unweighted = result.metrics[1];
  EXPECT_EQ(unweighted.metric, "acc_unweighted");
  EXPECT_NEAR(unweighted.base, 1, 1e-12);
  EXPECT_NEAR(unweighted.other, 1 + mean, 1e-12);
  EXPECT_NEAR(unweighted.difference.delta, mean, 1e-12);
  const double width =
      unweighted.difference.interval.value().high - unweighted.difference.interval.value().low;
  EXPECT_NEAR(width / (2 * 1.96 * std::sqrt(variance)), 1, 0.05);
  EXPECT_EQ(unweighted.difference.method, PairedMethod::bootstrap)
      << "McNemar's test is of all documents alike";
  EXPECT_EQ(unweighted.lost, result.metrics[0].lost);
  const PairedDifference same = compare_group(group, base, base).metrics[1].difference;
  EXPECT_EQ(same.delta, 0);
  EXPECT_FALSE(same.interval) << "without flips the bootstrap's has no width";
  group.weighted = true;
  EXPECT_EQ(compare_group(group, base, other).metrics.size(), 1U);
}

TEST(Compare, ReadsResultFolders) {
  const TemporaryFolder folder;
  std::string text;
  for (const Sample& sample : choice_samples(3)) text += to_line(sample) + "\n";
  for (const char* name : {"a", "b"}) {
    std::filesystem::create_directory(folder.path() / name);
    write_file_atomically(folder.path() / name / samples_file("arc"), text);
  }
  EXPECT_EQ(compare_folders("arc", folder.path() / "a", folder.path() / "b").documents, 3);
  EXPECT_THROW(compare_folders("piqa", folder.path() / "a", folder.path() / "b"), Error);
}

TEST(CompareDocuments, PerplexitiesTakeEnoughResamplesForManyComparisons) {
  std::vector<Sample> base, worse;
  for (int64_t i = 0; i < 40; ++i) {
    base.push_back(rolling_sample(i, -30, 10, 50, 20));
    worse.push_back(rolling_sample(i, -31 - static_cast<double>(i % 3), 10, 50, 20));
  }
  const TaskComparison result = compare_documents("pages", scores_of(base), scores_of(worse), {200, 7});
  EXPECT_NEAR(result.metrics.at(0).difference.p_value, 2.0 / (1 + least_comparison_resamples), 1e-15);
}

}  // namespace
}  // namespace qeval::eval
