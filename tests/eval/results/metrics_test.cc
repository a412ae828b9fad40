#include "eval/results/metrics.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/unicode.h"
#include "tests/eval/sample_fixture.h"
#include "tests/reference_data.h"

namespace qeval::eval {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

Scores choices(const std::vector<double>& log_likelihoods, std::vector<int64_t> gold,
               std::vector<int64_t> chars = {}, std::vector<int64_t> bytes = {}) {
  Scores scores;
  scores.facts = {std::move(gold), std::move(chars), std::move(bytes), 0, 0};
  for (const double value : log_likelihoods) scores.answers.push_back({value});
  scores.facts.choice_chars.resize(log_likelihoods.size(), 1);
  scores.facts.choice_bytes.resize(log_likelihoods.size(), 1);
  return scores;
}

TEST(ArgMax, TiesGoToTheFirstAndNanLosesToAnyNumber) {
  EXPECT_EQ(arg_max(std::vector{-2.0, -1.0, -1.0}), 1);
  EXPECT_EQ(arg_max(std::vector{nan, -3.0, nan}), 1);
  EXPECT_EQ(arg_max(std::vector{-inf, -inf}), 0);
  EXPECT_EQ(arg_max(std::vector{nan, nan}), -1);
  EXPECT_EQ(arg_max(std::vector<double>{}), -1);
}

TEST(MultipleChoice, AccuracyByLikelihoodCharactersAndBytes) {
  Scores scores = choice_sample(0).scores;  // best: 2 as it stands, 3 by characters, 0 by bytes
  const auto right = [&](std::string_view metric, int64_t gold) {
    scores.facts.gold = {gold};
    return document_term(scores, metric).value;
  };
  for (int64_t gold = 0; gold < 4; ++gold) {
    EXPECT_EQ(right("acc", gold), gold == 2 ? 1 : 0);
    EXPECT_EQ(right("acc_norm", gold), gold == 3 ? 1 : 0);
    EXPECT_EQ(right("acc_bytes", gold), gold == 0 ? 1 : 0);
  }
}

TEST(MultipleChoice, AnEmptyChoiceNeverWinsByLengthAndAnAllNanDocumentIsWrong) {
  EXPECT_EQ(document_term(choices({-1, -5}, {0}, {0, 10}), "acc_norm").value, 0);
  EXPECT_EQ(document_term(choices({-1, -5}, {1}, {0, 10}), "acc_norm").value, 1);
  EXPECT_EQ(document_term(choices({0, -5}, {0}, {0, 10}), "acc_norm").value, 0);
  for (const int64_t gold : {0, 1}) EXPECT_EQ(document_term(choices({nan, nan}, {gold}), "acc").value, 0);
}

TEST(MultipleTrue, MassOfTheTrueChoicesWithoutUnderflow) {
  Scores scores = choices({std::log(0.1), std::log(0.3), std::log(0.1)}, {0, 1});
  scores.scoring = Scoring::multiple_true;
  EXPECT_NEAR(document_term(scores, "acc").value, 0.8, 1e-15);
  for (Answer& answer : scores.answers) answer.log_likelihood -= 5000;  // exp() alone would give 0 / 0
  EXPECT_NEAR(document_term(scores, "acc").value, 0.8, 1e-12);
  scores.answers[2].log_likelihood = nan;
  EXPECT_TRUE(std::isnan(document_term(scores, "acc").value));
}

TEST(Metrics, UnknownNamesAreRefused) {
  EXPECT_THROW(document_term(choices({-1}, {0}), "perplexity"), Error);
  EXPECT_THROW(find_metric(Scoring::rolling, "acc"), Error);
}

TEST(Metrics, DocumentsMustBeInOrderAndAlike) {
  std::vector<Scores> documents{choice_sample(0).scores, choice_sample(1).scores};
  EXPECT_EQ(compute_metrics(documents).size(), 2U);
  documents[1].doc_id = 0;
  EXPECT_THROW(compute_metrics(documents), Error);
  documents[1].doc_id = 1;
  documents[1].metrics = {"acc"};
  EXPECT_THROW(compute_metrics(documents), Error);
}

TEST(Metrics, StandardErrorIsLeftOutForOneDocumentAndForNan) {
  std::vector<Scores> one{choice_sample(0).scores};
  EXPECT_FALSE(compute_metrics(one)[0].standard_error);
  EXPECT_TRUE(compute_metrics({}).empty());
  std::vector<Scores> pages{rolling_sample(0, -10, 4, 20, 6).scores, rolling_sample(1, nan, 4, 20, 6).scores};
  const auto metrics = compute_metrics(pages);
  EXPECT_TRUE(std::isnan(metrics[0].value));
  EXPECT_FALSE(metrics[0].standard_error);
  EXPECT_EQ(count(pages).not_a_number, 1);
}

TEST(Metrics, PerplexitiesAreOverTheSumsNotTheDocuments) {
  const std::vector<Scores> pages{rolling_sample(0, -30, 10, 50, 20).scores,
                                  rolling_sample(1, -90, 20, 70, 40).scores};
  const auto metrics = compute_metrics(pages);
  ASSERT_EQ(metrics.size(), 4U);
  EXPECT_NEAR(metrics[0].value, std::exp(120.0 / 30), 1e-12);
  EXPECT_NEAR(metrics[1].value, std::exp(120.0 / 120), 1e-12);
  EXPECT_NEAR(metrics[2].value, 1 / std::log(2.0), 1e-12);
  EXPECT_NEAR(metrics[3].value, std::exp(2.0), 1e-12);
  // Resamples of two documents: both first (1/4), both second (1/4), one of each (1/2); in words exp(3),
  // exp(4.5), exp(4). The bootstrap must find that distribution's standard deviation.
  const double mean = (std::exp(3.0) + std::exp(4.5)) / 4 + std::exp(4.0) / 2;
  const double square = (std::exp(6.0) + std::exp(9.0)) / 4 + std::exp(8.0) / 2;
  EXPECT_NEAR(metrics[0].standard_error.value(), std::sqrt(square - mean * mean), 2);
  EXPECT_EQ(compute_metrics(pages)[0].standard_error, metrics[0].standard_error) << "seeded";
  EXPECT_NE(compute_metrics(pages, {1000, 5})[0].standard_error, metrics[0].standard_error);
}

TEST(Counts, SumWhatTheResultsReport) {
  Sample sample = choice_sample(0);
  sample.scores.answers[1].truncated = 3;
  sample.scores.answers[3].truncated = 4;
  sample.scores.answers[3].encoded_apart = true;
  const TaskCounts counts = count(std::vector{sample.scores, choice_sample(1).scores});
  EXPECT_EQ(counts.documents, 2);
  EXPECT_EQ(counts.requests, 8);
  EXPECT_EQ(counts.tokens_scored, 40);
  EXPECT_EQ(counts.tokens_requested, 96);
  EXPECT_EQ(counts.truncated_requests, 2);
  EXPECT_EQ(counts.truncated_tokens, 7);
  EXPECT_EQ(counts.encoded_apart, 1);
  EXPECT_EQ(counts.windows, 0);
}

/// Reports showed the choice by a rule of their own, to which NaN over no characters was as good as −∞.
TEST(Metrics, TheChosenAnswerIsTheOneThatIsScored) {
  Scores scores = choice_sample(0).scores;
  EXPECT_EQ(chosen(scores, "acc"), 2);
  EXPECT_EQ(chosen(scores, "acc_norm"), 3);
  EXPECT_EQ(chosen(scores, "acc_bytes"), 0);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (Answer& answer : scores.answers) answer.log_likelihood = -infinity;
  scores.answers[0].log_likelihood = std::numeric_limits<double>::quiet_NaN();
  scores.facts.choice_chars = {0, 5, 5, 0};
  scores.facts.gold = {1};
  EXPECT_EQ(chosen(scores, "acc_norm"), 1);
  EXPECT_EQ(document_term(scores, "acc_norm").value, 1);
  scores.facts.choice_chars.clear();  // as a damaged file may have them
  EXPECT_EQ(chosen(scores, "acc_norm"), 1);
}

TEST(Group, WeightsBySizeAndPoolsTheError) {
  // Two subjects of 4 and 8 documents: the weighted mean is the mean of all documents; the pooled error is
  // the harness's formula, by hand: (4·3·0.25² + 8·7·0.125²) / (12 − 2) / 12.
  const std::vector<GroupMember> members{{0.5, 0.25, 4}, {0.875, 0.125, 8}};
  const auto values = aggregate_group("acc", members);
  ASSERT_EQ(values.size(), 2U);
  EXPECT_EQ(values[0].name, "acc");
  EXPECT_NEAR(values[0].value, 0.75, 1e-15);
  EXPECT_NEAR(values[0].standard_error.value(), std::sqrt((0.75 + 0.875) / 10 / 12), 1e-15);
  EXPECT_EQ(values[1].name, "acc_unweighted");
  EXPECT_NEAR(values[1].value, 0.6875, 1e-15);
  EXPECT_NEAR(values[1].standard_error.value(), std::sqrt(0.25 * 0.25 + 0.125 * 0.125) / 2, 1e-15);
}

TEST(Group, AMemberOfOneDocumentHasNoErrorToGive) {
  const auto values = aggregate_group("acc", std::vector<GroupMember>{{0.5, 0.25, 4}, {1, {}, 1}});
  EXPECT_NEAR(values[0].standard_error.value(), std::sqrt(0.75 / 3 / 5), 1e-15);
  EXPECT_FALSE(values[1].standard_error);
  const auto single = aggregate_group("acc", std::vector<GroupMember>{{1, {}, 1}, {0, {}, 1}});
  EXPECT_EQ(single[0].value, 0.5);
  EXPECT_FALSE(single[0].standard_error);
}

// ---- against lm-evaluation-harness: its log-likelihoods through our metrics must give its results ----

using nlohmann::json;

json rows_of(const std::string& task) {
  json rows = json::array();
  std::string text = read_file(test::shared_data("data") / task / "validation.jsonl");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) rows.push_back(json::parse(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return rows;
}

/// Gold indices of a reference sample; its target is spelt as the task does: index, letter or text.
std::vector<int64_t> gold_in_harness(const std::string& task, const json& sample, const json& rows) {
  const std::string target = sample["target"];
  const auto row = sample["doc_id"].get<size_t>();
  if (task == "winogrande") return {std::stoll(rows[row]["answer"].get<std::string>()) - 1};
  if (task == "truthfulqa_mc2") {
    std::vector<int64_t> gold;
    for (size_t i = 0; i < rows[row]["mc2_targets"]["labels"].size(); ++i) {
      if (rows[row]["mc2_targets"]["labels"][i] == 1) gold.push_back(static_cast<int64_t>(i));
    }
    return gold;
  }
  for (size_t i = 0; i < sample["arguments"].size(); ++i) {
    if (sample["arguments"][i][1] == " " + target) return {static_cast<int64_t>(i)};
  }
  return {std::stoll(target)};
}

Scores scores_in_harness(const std::string& task, const json& sample, const json& rows,
                         const std::vector<std::string>& metrics) {
  Scores scores;
  scores.doc_id = sample["doc_id"];
  scores.metrics = metrics;
  scores.scoring = task == "wikitext"         ? Scoring::rolling
                   : task == "lambada_openai" ? Scoring::last_word
                   : task == "truthfulqa_mc2" ? Scoring::multiple_true
                                              : Scoring::multiple_choice;
  for (size_t i = 0; i < sample["loglikelihoods"].size(); ++i) {
    scores.answers.push_back(
        {sample["loglikelihoods"][i], sample.contains("greedy") && sample["greedy"][i].get<bool>()});
    if (sample.contains("tokens")) scores.answers[i].tokens = sample["tokens"];
    if (!sample.contains("arguments")) continue;
    const std::string choice = sample["arguments"][i][1].get<std::string>().substr(1);
    scores.facts.choice_chars.push_back(static_cast<int64_t>(count_code_points(choice)));
    scores.facts.choice_bytes.push_back(static_cast<int64_t>(choice.size()));
  }
  if (scores.scoring == Scoring::rolling) {
    scores.facts.words = sample["words"];
    scores.facts.bytes = sample["bytes"];
  } else if (scores.scoring != Scoring::last_word) {
    scores.facts.gold = gold_in_harness(task, sample, rows);
  }
  return scores;
}

TEST(Metrics, EqualTheHarnessOnItsOwnLogLikelihoods) {
  const auto folder = test::shared_data("reference/lm_eval");
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << "no " << folder;
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const json reference = json::parse(read_file(entry.path()));
    const std::string task = reference["task"];
    SCOPED_TRACE(task);
    const std::string data = task.starts_with("truthfulqa") ? "truthfulqa" : task;
    const json rows = task == "winogrande" || task == "truthfulqa_mc2" ? rows_of(data) : json();
    std::vector<std::string> metrics;
    for (const auto& [key, value] : reference["results"].items()) {
      if (key.find("_stderr") == std::string::npos) metrics.push_back(key.substr(0, key.find(',')));
    }
    std::vector<Scores> documents;
    for (const json& sample : reference["samples"]) {
      documents.push_back(scores_in_harness(task, sample, rows, metrics));
      for (const std::string& metric : metrics) {
        if (!sample.contains(metric)) continue;  // wikitext's are not per document
        EXPECT_NEAR(document_term(documents.back(), metric).value, sample[metric].get<double>(), 1e-9)
            << metric << " of document " << sample["doc_id"];
      }
    }
    for (const MetricValue& metric : compute_metrics(documents)) {
      EXPECT_NEAR(metric.value, reference["results"][metric.name + ",none"].get<double>(),
                  1e-9 * std::max(1.0, metric.value));
      const std::string error = metric.name + "_stderr,none";
      if (find_metric(documents[0].scoring, metric.name).aggregation != Aggregation::mean)
        continue;  // bootstrapped
      ASSERT_EQ(metric.standard_error.has_value(), reference["results"].contains(error));
      if (metric.standard_error) {
        EXPECT_NEAR(*metric.standard_error, reference["results"][error].get<double>(), 1e-9);
      }
      ++compared;
    }
  }
  EXPECT_GE(compared, 20);
}

}  // namespace
}  // namespace qeval::eval
