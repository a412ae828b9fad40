// The parts of an evaluation, each alone: what is read and encoded, what a run is, who scores what.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/describe_model.h"
#include "eval/encoded_tasks.h"
#include "eval/evaluation.h"
#include "eval/run_folder.h"
#include "eval/run_settings.h"
#include "tests/message_of.h"
#include "tests/model/byte_model.h"
#include "tests/ranks.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using testing::HasSubstr;

class EvaluationPartsTest : public testing::Test {
 protected:
  EvaluationPartsTest() {
    test::write_byte_model(folder_ / "model");
    loaded_ = std::make_shared<LoadedModel>(folder_ / "model");
    options_.tasks = "sample_qa,sample_text";
    options_.batch_tokens = 64;
    session_ = std::make_unique<Session>(
        SessionOptions{.model = folder_ / "model", .arithmetic = "float", .max_length = {}}, loaded_);
  }

  test::TemporaryFolder folder_;
  EvaluationOptions options_;
  std::shared_ptr<LoadedModel> loaded_;
  std::unique_ptr<Session> session_;
};

/// A checkpoint was mapped, checked, hashed and its tokenizer read for every arithmetic anew.
TEST(Labels, OfOneFormatAreToldApartByWhatDiffers) {
  using Labels = std::vector<std::string>;
  EXPECT_EQ(distinct_labels({"Q4_1", "F16", "Q4_1"}, {"a", "b", "c"}),
            (Labels{"Q4_1 (a)", "F16", "Q4_1 (c)"}));
  EXPECT_EQ(distinct_labels({"Q4_1", "Q4_1", "Q4_1"}, {"a", "a", "a"}),
            (Labels{"Q4_1", "Q4_1 #2", "Q4_1 #3"}));
  EXPECT_EQ(distinct_labels({"Q4_1", "Q4_1", "Q4_1"}, {"a", "b", "a"}),
            (Labels{"Q4_1 (a)", "Q4_1 (b)", "Q4_1 (a) #2"}));
}

TEST_F(EvaluationPartsTest, SessionsOfALoadedCheckpointShareIt) {
  Session other({.model = folder_ / "model", .arithmetic = "float", .max_length = {}}, loaded_);
  EXPECT_EQ(&other.model(), &session_->model());
  EXPECT_EQ(&other.tokenizer(), &session_->tokenizer());
  EXPECT_EQ(&other.weight_hash(), &session_->weight_hash());
  EXPECT_EQ(other.weight_hash(), other.model().weight_hash());
}

TEST_F(EvaluationPartsTest, ATaskIsEncodedDocumentByDocument) {
  const EncodedTasks tasks = encode_tasks(*session_, options_);
  ASSERT_EQ(tasks.names(), (std::vector<std::string>{"sample_qa", "sample_text"}));
  const EncodedTask& questions = *tasks.tasks[0];
  ASSERT_GT(questions.documents(), 1);
  size_t requests = 0;
  int64_t scored = 0, input = 0;
  for (size_t i = 0; i < static_cast<size_t>(questions.documents()); ++i) {
    EXPECT_EQ(questions.first_request(i), requests);
    EXPECT_EQ(questions.requests(i).size(), questions.document(i).requests.size());
    requests += questions.requests(i).size();
    for (const TokenRequest& request : questions.requests(i)) {
      scored += request.scored;
      input += std::ssize(request.input());
    }
  }
  EXPECT_EQ(questions.requests().size(), requests);
  EXPECT_EQ(questions.tokens_scored(), scored);
  EXPECT_EQ(questions.plan().tokens_requested(), input);
  EXPECT_LT(questions.plan().tokens_computed(), input);  // choices share their question
  const auto costs = questions.costs({1, 0, 0}, [](int64_t doc_id) { return doc_id == 1; });
  ASSERT_EQ(costs.size(), 1U);
  EXPECT_EQ(costs[0].document, 1U);
}

/// The plan of all documents was made twice, when a task was read and when it was begun.
TEST_F(EvaluationPartsTest, ARunOverAllDocumentsTakesTheTasksOwnPlan) {
  const EncodedTasks tasks = encode_tasks(*session_, options_);
  TaskRun all(tasks.tasks[0]), some(tasks.tasks[0]);
  const TaskMeans means{session_->decoder(), session_->tokenizer(), session_->model().path,
                        options_.batch_tokens, options_.kv_bytes};
  all.start(means, [](int64_t) { return true; });
  EXPECT_EQ(all.tokens_to_do(), tasks.tasks[0]->plan().tokens_computed());
  some.start(means, [](int64_t doc_id) { return doc_id == 1; });
  EXPECT_LT(some.tokens_to_do(), all.tokens_to_do());
  std::vector<TaskRun::Finished> one;
  while (!some.done()) {
    for (auto& finished : some.step()) one.push_back(std::move(finished));
  }
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one[0].sample.scores.doc_id, 1);
  int64_t count = 0;
  while (!all.done()) {
    for (const auto& finished : all.step()) {
      ++count;
      if (finished.sample.scores.doc_id == 1) {
        EXPECT_EQ(finished.sample.scores.answers, one[0].sample.scores.answers);
      }
    }
  }
  EXPECT_EQ(count, tasks.tasks[0]->documents());
}

TEST_F(EvaluationPartsTest, TasksThatAreEncodedOnceGiveTheResultsOfThoseThatAreNot) {
  const EncodedTasks tasks = encode_tasks(*session_, options_);
  const auto results = [&](Evaluation evaluation) {
    evaluation.begin();
    while (!evaluation.done()) evaluation.step();
    return evaluation.finish();
  };
  const RunResults first = results(Evaluation(*session_, options_, tasks));
  const RunResults again = results(Evaluation(*session_, options_, tasks));
  const RunResults alone = results(Evaluation(*session_, options_));
  ASSERT_EQ(first.tasks.size(), 2U);
  for (size_t i = 0; i < first.tasks.size(); ++i) {
    EXPECT_EQ(first.tasks[i].logits_hash, alone.tasks[i].logits_hash);
    EXPECT_EQ(again.tasks[i].logits_hash, alone.tasks[i].logits_hash);
    EXPECT_EQ(first.tasks[i].tokens_computed, alone.tasks[i].tokens_computed);
  }
}

TEST_F(EvaluationPartsTest, WhatDecidesTheScoresIsInTheFingerprint) {
  const EncodedTasks tasks = encode_tasks(*session_, options_);
  const Fingerprint print = run_fingerprint(*session_, options_, tasks, nullptr);
  EXPECT_EQ(print.at("weights"), session_->weight_hash());
  EXPECT_EQ(print.at("arithmetic"), "float");
  EXPECT_TRUE(print.contains("prompts sample_qa"));
  EXPECT_FALSE(print.contains("logprobs"));
  EXPECT_FALSE(print.contains("shard"));
  options_.keep_logprobs = true;
  options_.shard = Shard{1, 2};
  options_.batch_tokens = 7;  // decides nothing
  const std::string changes = describe_changes(print, run_fingerprint(*session_, options_, tasks, nullptr));
  EXPECT_THAT(changes, HasSubstr("logprobs"));
  EXPECT_THAT(changes, HasSubstr("shard"));
  EXPECT_THAT(changes, testing::Not(HasSubstr("batch")));
  const RunResults run = run_settings(*session_, options_, tasks);
  EXPECT_EQ(run.protocol, "lm-eval-0.4");
  EXPECT_EQ(run.prefix_policy, tasks.prefix_policy);
  EXPECT_TRUE(run.tasks.empty());
  EXPECT_EQ(task_settings(*tasks.tasks[0]).name, "sample_qa");
}

TEST_F(EvaluationPartsTest, RanksScoreWhatIsUnfinishedAsTheFirstOneSeesIt) {
  const EncodedTasks tasks = encode_tasks(*session_, options_);
  const Fingerprint print{{"weights", "abc"}};
  const DocumentSets all{{0, 1, 2}, {0}};
  test::run_ranks(2, [&](const Peers& peers) {
    RunFolder folder(folder_ / "out", false, peers);
    folder.check(print, tasks.names());
    folder.open(print, tasks.names(), {});
    if (peers.is_first()) {
      Sample sample;
      sample.scores.doc_id = 1;
      sample.scores.scoring = tasks.tasks[0]->task().scoring;
      sample.requests = {{"context", " choice"}};
      sample.scores.answers = {{}};
      folder.directory()->append("sample_qa", sample);
    }
    wait_for_all(peers);
    EXPECT_EQ(folder.unfinished(tasks, all), (DocumentSets{{0, 2}, {0}})) << peers.rank;
    EXPECT_EQ(folder.directory()->path(),
              peers.is_first() ? folder_ / "out" : rank_folder(folder_ / "out", 1));
    wait_for_all(peers);
    folder.close();
    EXPECT_EQ(folder.directory(), nullptr);
  });
  RunFolder none({}, false, {});
  none.open(print, tasks.names(), {});
  EXPECT_EQ(none.directory(), nullptr);
  EXPECT_EQ(none.unfinished(tasks, all), all);
  EXPECT_THAT(message_of([&] { RunFolder(folder_ / "out", false, {}).check(print, tasks.names()); }),
              HasSubstr("resume"));
}

}  // namespace
}  // namespace qeval::eval
