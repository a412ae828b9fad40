#include "eval/tasks/fewshot.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/registry.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string mmlu_row(const std::string& question, int answer) {
  return R"({"question": ")" + question + R"(", "choices": ["w", "x", "y", "z"], "answer": )" +
         std::to_string(answer) + "}\n";
}

std::string piqa_row(int number) {
  const std::string text = std::to_string(number);
  return R"({"goal": "g)" + text + R"(", "sol1": "a)" + text + R"(", "sol2": "b)" + text +
         R"(", "label": 1})" + "\n";
}

LoadedTask load_with_examples(const std::string& task, const LoadOptions& options) {
  return load_documents(resolve_tasks(task).tasks.at(0), options);
}

TEST(DrawOrder, IsAPermutationFixedForEver) {
  std::vector<size_t> order = draw_order(10, 1234);
  // Pinned: runs of different versions and machines must draw the same examples.
  EXPECT_THAT(order, ElementsAre(5, 6, 4, 0, 7, 9, 8, 3, 2, 1));
  EXPECT_NE(order, draw_order(10, 1235));
  std::sort(order.begin(), order.end());
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_TRUE(draw_order(0, 1).empty());
}

TEST(DrawOrder, IsUniform) {
  std::vector<int> first(5, 0);
  for (uint64_t seed = 0; seed < 5000; ++seed) ++first[draw_order(5, seed)[0]];
  for (const int count : first) EXPECT_NEAR(count, 1000, 150);  // over five standard deviations
}

TEST(FewShot, MmluTakesTheFirstOfDevAfterOneOpeningSentence) {
  const TemporaryFolder folder;
  folder.write("mmlu/virology/test.jsonl", mmlu_row("T?", 0));
  folder.write("mmlu/virology/dev.jsonl", mmlu_row("D1?", 1) + mmlu_row("D2?", 3) + mmlu_row("D3?", 0));
  const LoadedTask loaded = load_with_examples("mmlu_virology", {.data = folder.path(), .num_fewshot = 2});
  EXPECT_EQ(loaded.documents[0].requests[2].context,
            "The following are multiple choice questions (with answers) about virology.\n\n"
            "D1?\nA. w\nB. x\nC. y\nD. z\nAnswer: B\n\n"
            "D2?\nA. w\nB. x\nC. y\nD. z\nAnswer: D\n\n"
            "T?\nA. w\nB. x\nC. y\nD. z\nAnswer:");
  EXPECT_EQ(loaded.documents[0].requests[2].continuation, " C");
  EXPECT_EQ(loaded.files.size(), 2U);
}

TEST(FewShot, MmluTakesEqualRowsAndTheScoredRowAsTheyStand) {
  // The harness does; the public dev split of college_physics holds one row twice.
  const TemporaryFolder folder;
  folder.write("mmlu/virology/test.jsonl", mmlu_row("D1?", 1));
  folder.write("mmlu/virology/dev.jsonl", mmlu_row("D1?", 1) + mmlu_row("D1?", 1) + mmlu_row("D3?", 0));
  const std::string context = load_with_examples("mmlu_virology", {.data = folder.path(), .num_fewshot = 3})
                                  .documents[0]
                                  .requests[0]
                                  .context;
  EXPECT_EQ(std::count(context.begin(), context.end(), '?'), 4) << context;
}

TEST(FewShot, ElsewhereASeedDrawsFromTheTrainingSplit) {
  const TemporaryFolder folder;
  std::string train;
  for (int i = 0; i < 50; ++i) train += piqa_row(i);
  folder.write("piqa/train.jsonl", train);
  folder.write("piqa/validation.jsonl", piqa_row(100) + piqa_row(101));
  const LoadOptions options{.data = folder.path(), .num_fewshot = 3, .seed = 7};
  const LoadedTask loaded = load_with_examples("piqa", options);
  const std::string& context = loaded.documents[0].requests[0].context;
  const std::vector<size_t> order = draw_order(50, 7);
  std::string expected;
  for (size_t i = 0; i < 3; ++i) {
    const std::string number = std::to_string(order[i]);
    expected += "Question: g" + number + "\nAnswer: b" + number + "\n\n";
  }
  EXPECT_EQ(context, expected + "Question: g100\nAnswer:");
  // All documents share the examples: the model reads them once.
  EXPECT_THAT(loaded.documents[1].requests[0].context, StartsWith(expected));
  EXPECT_EQ(load_with_examples("piqa", options).prompt_hash, loaded.prompt_hash);
  LoadOptions other = options;
  other.seed = 8;
  EXPECT_NE(load_with_examples("piqa", other).prompt_hash, loaded.prompt_hash);
}

TEST(FewShot, NeverShowsTheScoredDocument) {
  const TemporaryFolder folder;
  std::string train;
  for (int i = 0; i < 4; ++i) train += piqa_row(i) + piqa_row(i);  // every row twice
  folder.write("piqa/train.jsonl", train);
  const LoadedTask loaded =
      load_with_examples("piqa", {.data = folder.path(), .split = "train", .num_fewshot = 3});
  ASSERT_EQ(loaded.documents.size(), 8U);
  for (const Document& document : loaded.documents) {
    const std::string goal = document.row["goal"];
    const std::string& context = document.requests[0].context;
    EXPECT_EQ(context.find(goal + "\n"), context.rfind(goal + "\n")) << context;
    EXPECT_EQ(std::count(context.begin(), context.end(), 'Q'), 4);
  }
  EXPECT_THAT(message_of([&] {
                load_with_examples("piqa", {.data = folder.path(), .split = "train", .num_fewshot = 4});
              }),
              HasSubstr("3 usable rows where num_fewshot 4"));
}

TEST(FewShot, SaysWhatIsMissing) {
  const TemporaryFolder folder;
  folder.write("piqa/validation.jsonl", piqa_row(1));
  const auto error = [&](const std::string& task, int64_t count) {
    return message_of([&] { load_with_examples(task, {.data = folder.path(), .num_fewshot = count}); });
  };
  EXPECT_THAT(error("piqa", 1),
              AllOf(HasSubstr("no file of the train split"), HasSubstr("piqa/train.jsonl is expected")));
  EXPECT_THAT(error("piqa", 1), Not(HasSubstr("would read")));
  folder.write("piqa/train.jsonl", piqa_row(2) + piqa_row(2));
  EXPECT_THAT(error("piqa", 2), HasSubstr("piqa/train.jsonl: 1 usable rows where num_fewshot 2"));
  EXPECT_THROW(load_with_examples("piqa", {.data = folder.path(), .num_fewshot = -1}), UsageError);
  EXPECT_THAT(message_of([&] { load_with_examples("sample_text", {.num_fewshot = 1}); }),
              HasSubstr("takes no few-shot"));
}

TEST(FewShot, WorksOnTheShippedSample) {
  const LoadedTask letters = load_with_examples("sample_letters", {.num_fewshot = 5});
  EXPECT_THAT(letters.documents[0].requests[0].context, HasSubstr("\n\nWhat is 7 times 8?\n"));
  EXPECT_EQ(letters.documents.size(), 30U);
  EXPECT_EQ(load_with_examples("sample_qa", {.num_fewshot = 6}).documents.size(), 34U);
}

TEST(Limit, IsACountOrAFraction) {
  EXPECT_EQ(limited_count({}, 10), 10);
  EXPECT_EQ(limited_count(3, 10), 3);
  EXPECT_EQ(limited_count(30, 10), 10);
  EXPECT_EQ(limited_count(0.25, 10), 3);
  EXPECT_EQ(limited_count(0.001, 10), 1);
  for (const double bad : {0.0, -1.0, 1.5, 1e300, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(limited_count(bad, 10), UsageError) << bad;
  }
}

TEST(Limit, TakesTheFirstDocuments) {
  const LoadedTask loaded = load_with_examples("sample_qa", {.limit = 0.1});
  EXPECT_EQ(loaded.documents.size(), 4U);
  EXPECT_EQ(loaded.documents[3].doc_id, 3);
  EXPECT_EQ(loaded.split_size, 34);
}

}  // namespace
}  // namespace qeval::eval
