#include "eval/results/written_texts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/hash.h"
#include "eval/results/comparison.h"
#include "eval/results/comparison_table.h"
#include "eval/results/sample_file.h"
#include "tests/eval/result_fixture.h"

namespace qeval::eval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string repeated(const std::string& piece, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += piece;
  return out;
}

TEST(WrittenTexts, ALoopIsAnEndThatRepeats) {
  const std::string sentence = "So the answer is 12 apples, I think. ";  // 37 letters
  EXPECT_TRUE(ends_in_loop("Let me see. " + repeated(sentence, 3)));
  EXPECT_TRUE(ends_in_loop(repeated(sentence, 3) + "So the ans"));  // broken off in the fourth
  EXPECT_FALSE(ends_in_loop(repeated(sentence, 2) + "So the ans"));
  EXPECT_FALSE(ends_in_loop(repeated(sentence, 3) + "Done."));
  EXPECT_TRUE(ends_in_loop(repeated("-", 60)));
  EXPECT_FALSE(ends_in_loop(repeated("-", 59)));
  EXPECT_FALSE(ends_in_loop(repeated("é", 59)));  // 118 bytes
  EXPECT_TRUE(ends_in_loop(repeated("é", 60)));
  EXPECT_FALSE(ends_in_loop(""));
}

TEST(WrittenTexts, PrefixesAreOfWholeCharacters) {
  EXPECT_EQ(common_prefix("abc", "abd"), 2U);
  EXPECT_EQ(common_prefix("abc", "abc"), 3U);
  EXPECT_EQ(common_prefix("ab", "abc"), 2U);
  EXPECT_EQ(common_prefix("aé", "aè"), 1U);  // the same first byte
  EXPECT_EQ(common_prefix("a\u4e00", "a\u4e01"), 1U);
  EXPECT_EQ(common_prefix("", "x"), 0U);
}

TEST(WrittenTexts, AgreementAndHabitsArePaired) {
  const std::string loop = repeated("again and ", 20);
  const std::vector<WrittenText> base{
      {3, "four", 5, true}, {4, "eight!", 7, true}, {5, "\u00fc", 2, true}, {9, "", 1, true}};
  const std::vector<WrittenText> other{
      {3, "four", 5, true}, {4, "eight " + loop, 40, false}, {5, "x", 2, true}, {9, "", 1, true}};
  const WrittenTexts found = compare_texts(base, other);
  EXPECT_EQ(found.documents, 4);
  EXPECT_EQ(found.equal, 2);
  EXPECT_DOUBLE_EQ(found.agreement, (1 + 5.0 / 206 + 0 + 1) / 4);
  EXPECT_EQ(found.first_difference, 2.5);  // of 5 and 0
  ASSERT_EQ(found.habits.size(), 3U);
  EXPECT_EQ(found.habits[0].metric, "ended");
  EXPECT_EQ(found.habits[0].other, 0.75);
  EXPECT_THAT(found.habits[0].lost, ElementsAre(4));
  EXPECT_EQ(found.habits[0].difference.p_value, 1);  // of one document
  EXPECT_EQ(found.habits[1].metric, "free_of_loops");
  EXPECT_THAT(found.habits[1].lost, ElementsAre(4));
  EXPECT_EQ(found.habits[2].metric, "tokens");
  EXPECT_EQ(found.habits[2].difference.delta, 33.0 / 4);
  const WrittenTexts same = compare_texts(base, base);
  EXPECT_EQ(same.agreement, 1);
  EXPECT_EQ(same.first_difference, std::nullopt);
  EXPECT_EQ(same.habits[2].difference.p_value, 1);
}

Sample written(int64_t doc_id, const std::string& text, bool right, TextEnd end) {
  Sample sample;
  sample.scores.doc_id = doc_id;
  sample.scores.scoring = Scoring::generation;
  sample.scores.metrics = {"exact_match"};
  sample.scores.values = {right ? 1.0 : 0.0};
  sample.scores.answers.push_back({.tokens = std::ssize(text), .input_tokens = 4, .end = end});
  sample.scores.token_hash = "00112233445566778899aabbccddeeff";
  sample.doc = {{"question", "How many?"}};
  sample.target = "4";
  sample.requests = {{"How many?", ""}};
  sample.generated = {{{"until", {"\n"}}}, {text}, {{"none", text}}};
  return sample;
}

TEST(WrittenTexts, AComparisonHoldsAndStoresThem) {
  const TemporaryFolder folder;
  const auto make = [&](const std::string& name, bool broken) {
    std::vector<Sample> samples;
    std::string text;
    for (int64_t i = 0; i < 6; ++i) {
      const bool loops = broken && i > 1;
      samples.push_back(
          written(i, loops ? repeated("it is ", 30) : "4", !loops, loops ? TextEnd::length : TextEnd::stop));
      text += to_line(samples.back()) + "\n";
    }
    ComparedRun run{name, folder.path() / name, {}};
    qeval::create_directories(run.directory);
    write_file_atomically(run.directory / samples_file("sums"), text);
    run.results.tasks.push_back(make_task_results("sums", scores_of(samples), {}));
    run.results.tasks[0].samples_hash = sha256_hex(text);
    write_results(run.directory, run.results);
    return run;
  };
  const Comparison made = compare_runs(make("fp", false), {make("same", false), make("broken", true)});
  const WrittenTexts& texts = made.differences[1].find_task("sums")->texts.value();
  EXPECT_EQ(texts.equal, 2);
  EXPECT_EQ(texts.habits[0].lost.size(), 4U);
  EXPECT_EQ(texts.habits[0].difference.p_value, 0.125);
  // Correctness is tested as everywhere.
  EXPECT_EQ(made.find_test(1, "sums")->p_value, 0.125);
  EXPECT_EQ(nearest_run(made), 0U);
  EXPECT_EQ(nearest_run(made, 1), 1U);
  EXPECT_THAT(render_comparison(made), HasSubstr("1.0000 → 0.3333, p 0.125"));

  const ComparisonFile file{"fp",
                            {{"fp", "fp", "", "", "float", "fp", "", {}},
                             {"same", "rtn", "", "w8a8", "fake", "same", "", {}},
                             {"broken", "rtn", "", "w4a8", "fake", "broken", "", {}}}};
  write_comparison(folder.path(), file, made);
  const std::optional<Comparison> read = read_comparison(folder.path(), file);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(to_json(*read), to_json(made));
  EXPECT_EQ(read->differences[1].find_task("sums")->texts->first_difference, 0);
  EXPECT_FALSE(read->differences[0].find_task("sums")->texts->first_difference.has_value());
}

}  // namespace
}  // namespace qeval::eval
