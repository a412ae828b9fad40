// A model that computes NaN or infinities has no score: each command says where, and keeps what is sound.
#include <cmath>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace qeval::test {
namespace {

using model::fixtures::kTinyHidden;
using model::fixtures::kTinyInner;
using nlohmann::json;
using testing::HasSubstr;

constexpr float kInfinite = INFINITY;
constexpr const char* kDown = "model.layers.1.mlp.down_proj.weight";

class NotFiniteCli : public Cli {
 protected:
  /// A model whose embedding of one character is NaN: a text that has it as input has no score.
  void write_model_without(char character) const {
    write_damaged_model("broken", "model.embed_tokens.weight",
                        static_cast<size_t>(character) * static_cast<size_t>(kTinyHidden) + 5, NAN);
  }
  Outcome broken(std::vector<std::string> arguments, std::string_view input = "") const {
    arguments.insert(arguments.begin() + 1, {"-m", path("broken")});
    return run(arguments, input);
  }
};

TEST_F(NotFiniteCli, EvalNamesDocumentChoiceAndLayerAndKeepsTheOthers) {
  write_model_without('U');  // "Use a towel.", the second choice of the second document
  const std::vector<std::string> arguments{"eval",           "-d", path("data"), "-t",       "piqa",
                                           "--batch-tokens", "16", "-o",         path("out")};
  const std::string message =
      "task piqa, document 1, choice 2: the log-likelihood is nan: the first value that is not finite is in "
      "the "
      "output of model.embed_tokens, at token 28 of the input (id 85)";
  expect_one_line(broken(arguments), kFailed, message);
  EXPECT_FALSE(std::filesystem::exists(path("out/results.json")));
  const std::string journal = read("out/journal_piqa.jsonl");
  EXPECT_THAT(journal, HasSubstr("\"doc_id\":0"));
  EXPECT_THAT(journal, testing::Not(HasSubstr("\"doc_id\":1")));
  std::vector<std::string> again = arguments;
  again.emplace_back("--resume");
  expect_one_line(broken(again), kFailed, message);
  EXPECT_EQ(read("out/journal_piqa.jsonl"), journal);
  again.insert(again.end(), {"--limit", "1"});
  again[again.size() - 4] = path("first");
  expect_success(broken(again));
}

TEST_F(NotFiniteCli, TheLayerIsTheFirstOneWhateverTheWeightAndTheBatch) {
  for (const auto& [value, shown] : {std::pair{static_cast<float>(NAN), "nan"}, {kInfinite, "inf"}}) {
    write_damaged_model("broken", kDown, 3 * kTinyInner + 5, value);
    for (const char* batch : {"1", "2048"}) {
      expect_one_line(broken({"eval", "-t", "sample_text", "--batch-tokens", batch}), kFailed,
                      std::string("is in the output of model.layers.1.mlp.w2 (its weight holds ") + shown +
                          " in row 3), at token 0 of the input");
    }
  }
  write_damaged_model("other", "model.layers.1.post_attention_layernorm.weight", 0, kInfinite);
  expect_one_line(run({"eval", "-m", path("other"), "-t", "sample_text"}), kFailed,
                  "is in the output of model.layers.1.post_attention_layernorm, at token 0");
  write_damaged_model("head", "lm_head.weight", 7 * kTinyHidden, NAN);
  expect_one_line(run({"eval", "-m", path("head"), "-t", "sample_text"}), kFailed,
                  "is in the output of lm_head (its weight holds nan in row 7)");
}

TEST_F(NotFiniteCli, ScoreAnswersTheOtherLines) {
  write_model_without('U');
  const std::string requests = R"({"id": "a", "context": "x", "continuation": "yz"})"
                               "\n\n"
                               R"({"id": "b", "context": "xU", "continuation": "yz"})"
                               "\n"
                               R"({"id": "c", "context_ids": [85, 3], "continuation_ids": [4]})"
                               "\n"
                               R"({"id": "d", "context": "x", "continuation": "zU"})"
                               "\n";
  const Outcome outcome = broken({"score"}, requests);
  expect_one_line(
      outcome, kFailed,
      "2 of 4 requests have no finite score; the first: standard input, line 3: the log-likelihood "
      "is nan: the first value that is not finite is in the output of model.embed_tokens, at token 1");
  std::istringstream lines(outcome.output);
  std::string line;
  std::vector<json> answers;
  while (std::getline(lines, line)) answers.push_back(json::parse(line));
  ASSERT_EQ(answers.size(), 4U);
  for (const size_t sound : {0, 3}) {  // 'U' as the last token is predicted, not read
    EXPECT_TRUE(answers[sound]["logprob"].is_number()) << answers[sound];
    EXPECT_FALSE(answers[sound].contains("error"));
  }
  EXPECT_EQ(answers[1]["id"], "b");
  EXPECT_THAT(answers[1]["error"].get<std::string>(), HasSubstr("model.embed_tokens, at token 1"));
  EXPECT_FALSE(answers[1].contains("logprob"));
  EXPECT_THAT(answers[2]["error"].get<std::string>(), HasSubstr("at token 0 of the input (id 85)"));
}

TEST_F(NotFiniteCli, GenerateNamesTheLayer) {
  write_damaged_model("broken", kDown, 0, kInfinite);
  expect_one_line(broken({"generate", "-p", "Hello", "-n", "3"}), kFailed,
                  "a logit of the next token is nan: the first value that is not finite is in the output of "
                  "model.layers.1.mlp.w2");
}

TEST_F(NotFiniteCli, ConvertNamesTheTensorAndLeavesNothing) {
  write_damaged_model("broken", kDown, 3 * kTinyInner + 5, NAN);
  for (const char* type : {"f32", "f16", "bf16"}) {
    expect_one_line(broken({"convert", "-o", path("converted"), "--dtype", type}), kFailed,
                    "tensor model.layers.1.mlp.w2.weight: row 3, column 5 is nan; accepted: finite numbers");
    EXPECT_TRUE(std::filesystem::is_empty(path("converted")));
  }
  write_damaged_model("broken", kDown, 0, 3.4e38F);
  expect_one_line(broken({"convert", "-o", path("converted"), "--dtype", "bf16"}), kFailed,
                  "is beyond bfloat16; accepted with this model: f32");
  expect_success(run({"convert", "-m", path("broken"), "-o", path("converted")}));
}

}  // namespace
}  // namespace qeval::test
