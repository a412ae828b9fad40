// The program as its users meet it: what it prints where, what it writes, and how it says that something is
// wrong: one line on stderr that names the culprit, exit status 1, or 2 for a wrong command line.

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"
#include "model/kernels/bf16.h"

namespace qeval::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

// The standard library's exception, which said what it had called, reached the user.
TEST_F(Cli, APathThatTheSystemRefusesIsNamedWithItsReason) {
  const std::string name(300, 'x');
  expect_one_line(run({"tokenize", "-m", path(name)}), kFailed, name + ": File name too long");
}

TEST_F(Cli, HelpListsEveryCommandAndEachHasAnExample) {
  const Outcome help = run({"--help"});
  expect_success(help);
  // A command's line is indented by two spaces.
  int commands = 0;
  for (size_t line = help.output.find("\n  "); line != std::string::npos;
       line = help.output.find("\n  ", line + 1)) {
    const size_t begin = line + 3;
    const std::string command = help.output.substr(begin, help.output.find(' ', begin) - begin);
    const Outcome own = run({command, "--help"});
    expect_success(own);
    EXPECT_THAT(own.output, AllOf(HasSubstr("Usage: qeval " + command), HasSubstr("Example:\n  "),
                                  HasSubstr("qeval " + command + " ")));
    ++commands;
  }
  EXPECT_GE(commands, 5);
}

TEST_F(Cli, HelpOfACommandIsShownEitherWay) {
  const Outcome help = run({"help", "eval"});
  expect_success(help);
  EXPECT_EQ(help.output, run({"eval", "--help"}).output);
  EXPECT_EQ(run({"help"}).output, run({"--help"}).output);
  expect_one_line(run({"help", "evaluate"}), kWrongUsage, "unknown command evaluate; accepted: eval, ");
  expect_one_line(run({"help", "eval", "-t"}), kWrongUsage, "usage: qeval help COMMAND");
}

TEST_F(Cli, VersionIsPrinted) {
  const Outcome outcome = run({"--version"});
  expect_success(outcome);
  EXPECT_THAT(outcome.output, StartsWith("qeval "));
  EXPECT_THAT(outcome.output, HasSubstr("\nkernels: ")) << "and what it would compute with here";
  expect_one_line(run({"--version", "x"}), kWrongUsage, "--version stands alone");
}

TEST_F(Cli, WithoutACommandTheOverviewGoesToStderr) {
  const Outcome outcome = run({});
  EXPECT_EQ(outcome.status, kWrongUsage);
  EXPECT_THAT(outcome.error, HasSubstr("Usage:"));
  EXPECT_THAT(outcome.output, IsEmpty());
}

TEST_F(Cli, WrongUsageExitsWithTwoAndNamesTheMistake) {
  expect_one_line(run({"evaluate"}), kWrongUsage, "unknown command evaluate; accepted: ");
  expect_one_line(run({"eval", "--modle", "x"}), kWrongUsage, "--modle");
  expect_one_line(run({"eval", "-t", "piqa"}), kWrongUsage, "--model is required");
  expect_one_line(run({"eval", "-m", path("model")}), kWrongUsage, "--tasks is required");
  expect_one_line(eval({"-t", "piqa", "--limit", "many"}), kWrongUsage, "--limit many");
  expect_one_line(eval({"-t", "piqa", "--limit", "3x"}), kWrongUsage, "--limit 3x");
  expect_one_line(eval({"-t", "piqa", "--limit", "0"}), kWrongUsage, "--limit");
  expect_one_line(eval({"-t", "piqa", "--limit", "-1"}), kWrongUsage, "--limit");
  expect_one_line(eval({"-t", "piqa", "--num-fewshot", "-1"}), kWrongUsage, "--num-fewshot");
  expect_one_line(eval({"-t", "piqa", "--batch-tokens", "0"}), kWrongUsage, "--batch-tokens 0");
  expect_one_line(eval({"-t", "piqa", "--batch-tokens", "ten"}), kWrongUsage, "ten");
  expect_one_line(eval({"-t", "piqa", "--threads", "0"}), kWrongUsage, "--threads 0");
  expect_one_line(eval({"-t", "piqa", "--protocol", "mine"}), kWrongUsage, "accepted: lm-eval-0.4");
  expect_one_line(eval({"-t", "piqa", "--prefix-token", "mine"}), kWrongUsage, "accepted: auto");
  expect_one_line(eval({"-t", "piqa", "--resume"}), kWrongUsage, "-o");
}

TEST_F(Cli, WhatANewcomerMistypesIsAnsweredWithWhatWasMeant) {
  expect_one_line(eval({"-t", "piqa", "--limt", "5"}), kWrongUsage, "'--limt'; near names: --limit");
  expect_one_line(eval({"-t", "piqa", "--task", "x"}), kWrongUsage, "near names: --tasks");
  expect_one_line(run({"eval", path("model"), "-t", "sample"}), kWrongUsage,
                  "an argument stands without its option; usage: qeval eval -m MODEL -t TASKS");
  expect_one_line(run({"-m", path("model")}), kWrongUsage, "-m: a command comes first");
  expect_one_line(eval({"-t", "hellaswag"}), kFailed, "scripts/fetch_datasets.py");
  expect_one_line(run({"eval", "-m", path("data"), "-t", "sample"}), kFailed,
                  "data: holds no config.json; accepted: ");
  expect_one_line(eval({"-t", "piqa", "-o", path("model")}), kFailed, "holds a model (config.json)");
}

TEST_F(Cli, HalfAQuantizedCheckpointIsNotSilentlyFloat) {
  write("model/default_qcfg.json", "{}");
  const Outcome outcome = eval({"-t", "piqa"});
  EXPECT_EQ(outcome.status, 0);
  const std::string warning = "warning: " + path("model") + ": holds only one of default_qcfg.json and";
  EXPECT_THAT(outcome.error, HasSubstr(warning));
  if (model::bf16_kernel() == nullptr) return;
  EXPECT_THAT(eval({"-t", "piqa", "--precision", "bf16"}).error, HasSubstr(warning));
}

TEST_F(Cli, NamesAreCheckedBeforeWorkStarts) {
  expect_one_line(eval({"-t", "piqua"}), kWrongUsage, "piqua");
  expect_one_line(eval({"-t", "piqa,hellaswag"}), kFailed, path("data/hellaswag"));
  expect_one_line(eval({"-t", "piqa", "--split", "test"}), kFailed, "--split validation");
  expect_one_line(eval({"-t", "piqa", "--arithmetic", "analog"}), kWrongUsage,
                  "--arithmetic analog: unknown");
  expect_one_line(eval({"-t", "piqa", "--precision", "fp4"}), kWrongUsage, "--precision fp4: unknown");
  setenv("QEVAL_CPU", "portable", 1);
  expect_one_line(eval({"-t", "piqa", "--precision", "bf16"}), kFailed, "has no bfloat16 products");
  // Where there are none, the faster of both is float32.
  expect_success(eval({"-t", "piqa", "--precision", "auto"}));
  unsetenv("QEVAL_CPU");
  expect_one_line(eval({"-t", "piqa", "--max-length", "4096"}), kWrongUsage, "--max-length 4096");
}

TEST_F(Cli, AModelThatIsMissingOrNoneIsNamed) {
  expect_one_line(run({"eval", "-m", path("nowhere"), "-t", "sample"}), kFailed, path("nowhere"));
  expect_one_line(run({"eval", "-m", path("data"), "-t", "sample"}), kFailed, path("data"));
  write("notes.gguf", "this is no model");
  expect_one_line(run({"inspect", "-m", path("notes.gguf")}), kFailed, "notes.gguf");
  write("model/config.json", R"({"model_type": "mamba"})");
  expect_one_line(run({"inspect", "-m", path("model")}), kFailed, "mamba");
}

TEST_F(Cli, TruncatedFilesAreNamed) {
  const std::string weights = tiny_weights();
  for (const size_t length : {size_t{0}, size_t{4}, size_t{500}, weights.size() - 1}) {
    write("model/model.safetensors", weights.substr(0, length));
    expect_one_line(eval({"-t", "piqa"}), kFailed, "model.safetensors");
  }
  write("model/model.safetensors", weights);

  const std::string gguf = model::fixtures::gguf(model::fixtures::tiny_gguf());
  for (const size_t length : {size_t{0}, size_t{20}, size_t{300}, gguf.size() - 1}) {
    write("model.gguf", gguf.substr(0, length));
    expect_one_line(run({"inspect", "-m", path("model.gguf")}), kFailed, "model.gguf");
  }

  const std::string tokenizer = byte_tokenizer();
  write("model/tokenizer.json", tokenizer.substr(0, tokenizer.size() / 2));
  expect_one_line(eval({"-t", "piqa"}), kFailed, "tokenizer.json");
  write("model/tokenizer.json", tokenizer);

  const std::string rows = read("data/piqa/validation.jsonl");
  write("data/piqa/validation.jsonl", rows.substr(0, rows.size() - 10));
  expect_one_line(eval({"-t", "piqa"}), kFailed, "validation.jsonl");
  write("data/piqa/validation.jsonl", "");
  expect_one_line(eval({"-t", "piqa"}), kFailed, "validation.jsonl");
  write("data/piqa/validation.jsonl", rows);

  const std::string config = tiny_model_config();
  write("model/config.json", config.substr(0, config.size() / 2));
  expect_one_line(eval({"-t", "piqa"}), kFailed, "config.json");
}

TEST_F(Cli, ATokenBeyondTheEmbeddingsIsAnErrorWhereATextHasIt) {
  nlohmann::json tokenizer = nlohmann::json::parse(byte_tokenizer());
  tokenizer["added_tokens"].push_back(tokenizer["added_tokens"][0]);
  tokenizer["added_tokens"].back()["id"] = kTokens;
  tokenizer["added_tokens"].back()["content"] = "<other>";
  write("model/tokenizer.json", tokenizer.dump());
  expect_one_line(run({"score", "-m", path("model")}, R"({"id":1,"context":"a","continuation":"<other>"})"),
                  kFailed, "belongs to another model");
  EXPECT_EQ(run({"score", "-m", path("model")}, R"({"id":1,"context":"a","continuation":"b"})").status, 0);
}

TEST_F(Cli, AHostilePickleIsRefusedAndNotRun) {
  std::filesystem::remove(path("model/model.safetensors"));
  const std::string command = "touch " + path("owned");
  const std::string pickle =
      "\x80\x02"
      "cos\nsystem\n(X" +
      model::fixtures::raw(static_cast<uint32_t>(command.size())) + command + "tR.";
  write("model/pytorch_model.bin", model::fixtures::pytorch(pickle, {}));
  expect_one_line(eval({"-t", "piqa"}), kFailed, "os.system");
  EXPECT_FALSE(std::filesystem::exists(path("owned")));
}

TEST_F(Cli, OutputThatCannotBeWrittenIsNamed) {
  write("file", "no folder");
  expect_one_line(eval({"-t", "piqa", "-o", path("file/results")}), kFailed, path("file"));
  expect_one_line(eval({"-t", "piqa", "-o", path("file")}), kFailed, path("file"));
  write("others/results.json", "{}");
  expect_one_line(eval({"-t", "piqa", "-o", path("others")}), kFailed, path("others"));
  EXPECT_EQ(read("others/results.json"), "{}");
}

TEST_F(Cli, AFullDiskUnderStandardOutputIsAFailure) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  expect_one_line(run_qeval(path("."), {"tasks"}, "", "/dev/full"), kFailed, "standard output");
}

TEST_F(Cli, EvalWritesResultsAndSamples) {
  const Outcome outcome = eval({"-t", "piqa", "-o", path("out")});
  expect_success(outcome);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("piqa"), HasSubstr(path("out"))));
  const nlohmann::json results = nlohmann::json::parse(read("out/results.json"));
  EXPECT_TRUE(results["results"]["piqa"]["acc,none"].is_number());
  EXPECT_EQ(results["n-samples"]["piqa"]["effective"], 2);
  const std::string samples = read("out/samples_piqa.jsonl");
  EXPECT_EQ(std::ranges::count(samples, '\n'), 2);
}

TEST_F(Cli, EvalNeedsNoDataForTheShippedTasks) {
  const Outcome outcome = run({"eval", "-m", path("model"), "-t", "sample", "-d", path("nowhere")});
  expect_success(outcome);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("sample_qa"), HasSubstr("sample_letters"), HasSubstr("sample_text")));
}

TEST_F(Cli, ScoresDependNeitherOnThreadsNorOnBatches) {
  expect_success(eval({"-t", "piqa,sample", "-o", path("a"), "--threads", "1", "--batch-tokens", "256"}));
  expect_success(eval({"-t", "piqa,sample", "-o", path("b"), "--threads", "2", "--batch-tokens", "4096"}));
  for (const std::string file :
       {"samples_piqa.jsonl", "samples_sample_qa.jsonl", "samples_sample_text.jsonl"}) {
    EXPECT_EQ(read("a/" + file), read("b/" + file)) << file;
  }
}

TEST_F(Cli, ScoreAnswersInOrder) {
  const Outcome outcome = run({"score", "-m", path("model")},
                              "{\"id\": \"x\", \"context\": \"To be\", \"continuation\": \" or\"}\n"
                              "\n"
                              "{\"id\": 7, \"context_ids\": [1, 2], \"continuation_ids\": [3]}\n");
  expect_success(outcome);
  const size_t line = outcome.output.find('\n') + 1;
  const nlohmann::json first = nlohmann::json::parse(outcome.output.substr(0, line));
  const nlohmann::json second = nlohmann::json::parse(outcome.output.substr(line));
  EXPECT_EQ(first["id"], "x");
  EXPECT_EQ(first["tokens"], nlohmann::json({' ', 'o', 'r'}));
  EXPECT_EQ(second["id"], 7);
  EXPECT_EQ(second["tokens"], nlohmann::json({3}));
  EXPECT_EQ(second["token_logprobs"].size(), 1);
  EXPECT_LT(second["logprob"], 0.0);
}

TEST_F(Cli, ScoreNamesTheLineOfAWrongRequest) {
  const auto score = [&](const std::string& request) {
    return run({"score", "-m", path("model")}, R"({"id": 1, "context_ids": [1], "continuation_ids": [2]})"
                                               "\n" +
                                                   request + "\n");
  };
  expect_one_line(score("{"), kFailed, "line 2");
  expect_one_line(score(R"({"id": 1})"), kFailed, "line 2: neither");
  expect_one_line(score(R"({"context_ids": [1], "continuation_ids": [999]})"), kFailed,
                  "line 2: \"continuation_ids\": 999");
  expect_one_line(score(R"({"context_ids": [], "continuation_ids": [1]})"), kFailed,
                  "line 2: \"context_ids\"");
  expect_one_line(score(R"({"context": "a", "continuation": 5})"), kFailed, "line 2: \"continuation\"");
  // The text was ignored where ids were given, and so was every misspelt key.
  expect_one_line(
      score(R"({"context": "a", "continuation": "b", "context_ids": [1], "continuation_ids": [2]})"), kFailed,
      "line 2: \"context\" beside \"continuation_ids\": text or ids, not both");
  expect_one_line(score(R"({"context_ids": [1], "continuation": "b"})"), kFailed,
                  "line 2: \"context_ids\" beside \"continuation\"");
  expect_one_line(score(R"({"context": "a", "continuation": "b", "idd": 3})"), kFailed,
                  "line 2: \"idd\": unknown; accepted: \"id\"");
  // Found by reading: copying an id that nests a million deep ran off the end of the stack.
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  expect_one_line(score(R"({"context_ids": [1], "continuation_ids": [2], "id": )" + deep + "}"), kFailed,
                  "line 2: the request: nested deeper");
}

TEST_F(Cli, ScoreBlamesNoLineForTheModelsTokenizer) {
  const std::string text = R"({"context": "x", "continuation": "y"})",
                    ids = R"({"context_ids": [1], "continuation_ids": [2]})";
  for (const char* tokenizer : {"{", ""}) {
    if (*tokenizer != '\0') {
      write("model/tokenizer.json", tokenizer);
    } else {
      std::filesystem::remove(path("model/tokenizer.json"));
    }
    const Outcome outcome = run({"score", "-m", path("model")}, text + "\n");
    expect_one_line(outcome, kFailed, path("model"));
    EXPECT_THAT(outcome.error, testing::Not(HasSubstr("standard input")));
    expect_success(run({"score", "-m", path("model")}, ids + "\n"));  // which needs none
  }
}

TEST_F(Cli, TokenizePrintsAListPerLine) {
  const Outcome lines = run({"tokenize", "-m", path("model")}, "ab\n\nc\n");
  expect_success(lines);
  EXPECT_EQ(lines.output, "[97,98]\n[]\n[99]\n");
  // Saved by an editor of another system.
  EXPECT_EQ(run({"tokenize", "-m", path("model")},
                "\xEF\xBB\xBF"
                "ab\r\n\r\nc\r\n")
                .output,
            lines.output);
  const Outcome json = run({"tokenize", "-m", path("model/tokenizer.json"), "--json-lines"}, "\"a\\nb\"\n");
  expect_success(json);
  EXPECT_EQ(json.output, "[97,10,98]\n");
  expect_one_line(run({"tokenize", "-m", path("model"), "--json-lines"}, "\"a\"\nb\n"), kFailed, "line 2");
}

TEST_F(Cli, InspectDescribesTheModel) {
  const Outcome outcome = run({"inspect", "-m", path("model"), "--tensors"});
  expect_success(outcome);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("llama"), HasSubstr("257 tokens"), HasSubstr("lm_head.weight"),
                                    Not(HasSubstr("none usable"))));
}

TEST_F(Cli, TasksAreListedForPeopleAndPrograms) {
  const Outcome people = run({"tasks"});
  expect_success(people);
  EXPECT_THAT(people.output, HasSubstr("arc_easy"));
  const Outcome programs = run({"tasks", "--json"});
  expect_success(programs);
  EXPECT_GT(nlohmann::json::parse(programs.output)["tasks"].size(), 60);
}

}  // namespace
}  // namespace qeval::test
