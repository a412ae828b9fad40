// Inputs at their limits: a model larger than memory, very long documents, very many choices, empty files,
// other line ends, names that are no text.

#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "../model/fixtures.h"
#include "base/file.h"
#include "cli_fixture.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

class LimitsCli : public Cli {
 protected:
  json results(const std::string& folder) const { return json::parse(read(folder + "/results.json")); }
};

TEST_F(LimitsCli, AModelLargerThanMemoryIsRefusedBeforeItIsRead) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer's layout of the addresses has no room to map so large a file";
#endif
  constexpr uint64_t kBytes = uint64_t{4} << 40;
  const std::string header = fmt::format(
      R"({{"model.embed_tokens.weight": {{"dtype": "F32", "shape": [{}, 32], "data_offsets": [0, {}]}}}})",
      kBytes / 128, kBytes);
  const std::string padding((64 - (8 + header.size()) % 64) % 64, ' ');
  const std::string start = model::fixtures::safetensors(header + padding, "");
  write("model/model.safetensors", start);
  std::error_code code;
  fs::resize_file(path("model/model.safetensors"), start.size() + kBytes, code);  // holes take no disk
  if (code) GTEST_SKIP() << "no files of " << kBytes << " bytes here: " << code.message();
  const Outcome outcome = eval({"-t", "sample"});
  expect_one_line(outcome, kFailed, "needs about 4398.0 GB of memory, ");
  EXPECT_THAT(outcome.error, MatchesRegex("qeval: .*/model.*, [0-9.]+ GB are available \\(.+\\): .*\n"));
}

TEST_F(LimitsCli, ADocumentOf200000TokensIsScoredInWindows) {
  std::string text = " = Title = \n";
  while (text.size() < 200'000) text += fmt::format(" word {} of many .\n", text.size());
  write("data/wikitext2/wiki.test.raw", text);
  expect_success(eval({"-t", "wikitext", "-o", path("out")}));
  const json task = results("out")["tasks"]["wikitext"];
  EXPECT_EQ(task["documents"], 1);
  EXPECT_GT(task["tokens_scored"], 150'000);
  EXPECT_GT(task["windows"], 1'000);
  // As a question's context it is cut from the left, and counted.
  const json row{{"goal", text}, {"sol1", "Wait."}, {"sol2", "Go."}, {"label", 0}};
  write("data/piqa/validation.jsonl", row.dump() + "\n");
  expect_success(eval({"-t", "piqa", "-o", path("cut")}));
  EXPECT_EQ(results("cut")["tasks"]["piqa"]["truncated_requests"], 2);
}

TEST_F(LimitsCli, ARowOf10000ChoicesIsScored) {
  json row{{"question", "Which?"}, {"options", json::array()}, {"answer", 9'999}};
  for (int i = 0; i < 10'000; ++i) row["options"].push_back(fmt::format("choice {}", i));
  write("many.jsonl", row.dump() + "\n");
  write("many.json", R"({"name": "many", "data": "many.jsonl", "prompt": "{{question}}", "choices": "options",
                         "gold": "answer"})");
  expect_success(eval({"-t", path("many.json"), "-o", path("out")}));
  EXPECT_EQ(results("out")["tasks"]["many"]["requests"], 10'000);
  expect_success(run({"verify", path("out")}));
}

TEST_F(LimitsCli, EmptyFilesAreNamed) {
  for (const char* file : {"data/piqa/validation.jsonl", "model/config.json", "model/model.safetensors",
                           "model/tokenizer.json", "empty.gguf", "empty.txt", "task.json"}) {
    SCOPED_TRACE(file);
    const bool there = fs::exists(path(file));
    const std::string kept = there ? read(file) : "";
    write(file, "");
    const std::string name = fs::path(file).filename();
    Outcome outcome;
    if (name == "empty.gguf") {
      outcome = run({"inspect", "-m", path(file)});
    } else if (name == "empty.txt") {
      outcome = run({"quantize", "-m", path("model"), "--calibration", path(file), "--samples", "1",
                     "--sequence-length", "8", "-o", path("q")});
    } else {
      outcome = eval({"-t", name == "task.json" ? path(file) : "piqa"});
    }
    expect_one_line(outcome, kFailed, name == "model.safetensors" ? "model.safetensors" : name);
    write(file, kept);
  }
}

TEST_F(LimitsCli, WindowsLineEndsAndAByteOrderMarkChangeNothing) {
  const auto dos = [](const std::string& text) {
    std::string out = "\xEF\xBB\xBF";
    for (const char c : text) out += c == '\n' ? std::string("\r\n") : std::string(1, c);
    return out;
  };
  write("own.jsonl", R"({"q": "One?", "o": ["a", "b"], "a": 0})"
                     "\n");
  write("own.json",
        "{\"name\": \"own\", \"data\": \"own.jsonl\",\n \"prompt\": \"{{q}}\", \"choices\": \"o\", \"gold\": "
        "\"a\"}\n");
  const std::vector<std::string> tasks{"-t", "piqa," + path("own.json"), "-o"};
  expect_success(eval({tasks[0], tasks[1], tasks[2], path("unix")}));
  for (const char* file : {"data/piqa/validation.jsonl", "own.jsonl", "own.json", "model/config.json",
                           "model/tokenizer_config.json"})
    write(file, dos(read(file)));
  expect_success(eval({tasks[0], tasks[1], tasks[2], path("dos")}));
  EXPECT_EQ(read("dos/samples_piqa.jsonl"), read("unix/samples_piqa.jsonl"));
  EXPECT_EQ(read("dos/samples_own.jsonl"), read("unix/samples_own.jsonl"));

  const std::string request = R"({"id": 1, "context": "Two", "continuation": " more"})"
                              "\n";
  const Outcome plain = run({"score", "-m", path("model")}, request),
                other = run({"score", "-m", path("model")}, dos(request));
  expect_success(other);
  EXPECT_EQ(other.output, plain.output);
}

TEST_F(LimitsCli, NamesThatAreNoTextAreWrittenAsTheirBytes) {
  const std::string odd = "m\xFF\xC3";
  fs::rename(path("model"), path(odd));
  fs::rename(path("data"), path("d\xFE"));
  write("text\xFF.txt", std::string(200, 'a') + " and some words\n");
  expect_success(run({"eval", "-m", path(odd), "-t", "piqa", "-d", path("d\xFE"), "-o", path("out\xFF")}));
  const json run_results = results("out\xFF");
  EXPECT_EQ(run_results["model_name"], "m\\xff\\xc3");
  EXPECT_THAT(run_results["command"].get<std::string>(), HasSubstr("/m\\xff\\xc3' "));
  expect_success(run({"verify", path("out\xFF")}));
  expect_success(run({"report", path("out\xFF"), "-o", path("r\xFF.md"), "--html", path("r\xFF.html")}));
  expect_success(run({"quantize", "-m", path(odd), "--calibration", path("text\xFF.txt"), "--samples", "2",
                      "--sequence-length", "16", "-o", path("q\xFF")}));
  EXPECT_EQ(
      run({"eval", "-m", path("q\xFF"), "-t", "piqa", "-d", path("d\xFE"), "-o", path("out2\xFF")}).status,
      0);
  const Outcome wrong = run({"eval", "-m", path("none\xFF"), "-t", "piqa"});
  EXPECT_EQ(wrong.status, kFailed);
  // The command in the results is one that bash understands.
  write("again", "cd " + path("") + "\n" + fmt::format("qeval() {{ {} \"$@\"; }}\n", QEVAL_BINARY) +
                     run_results["command"].get<std::string>() + "\n");
  expect_success(wait_for(start_program(path(""), {"bash", path("again")})));
}

TEST_F(LimitsCli, BenchFitsItsDefaultsToAShortContext) {
  const Outcome fits =
      run({"bench", "-m", path("model"), "--schemes", "fp", "--repeat", "1", "--warmup", "0"});
  EXPECT_EQ(fits.status, 0) << fits.error;
  expect_one_line(run({"bench", "-m", path("model"), "--schemes", "fp", "--prompt", "256"}), kWrongUsage,
                  "--prompt 256: accepted: 1 to 128, the model's context");
}

TEST_F(LimitsCli, ABaseWithOtherDocumentsIsRefusedBeforeTheWork) {
  expect_success(eval({"-t", "piqa", "--keep-logprobs", "-o", path("base")}));
  expect_one_line(
      eval({"-t", "piqa", "--limit", "1", "--base", path("base"), "-o", path("a")}), kFailed,
      "holds 2 documents of task piqa, this run has 1: give the --limit (none) that the base had");
  EXPECT_FALSE(fs::exists(path("a")));
  expect_success(eval({"-t", "piqa", "--limit", "1", "--keep-logprobs", "-o", path("base1")}));
  expect_one_line(eval({"-t", "piqa", "--base", path("base1"), "-o", path("b")}), kFailed,
                  "holds 1 documents of task piqa, this run has 2: give the --limit 1 that the base had");
  EXPECT_FALSE(fs::exists(path("b")));
}

}  // namespace
}  // namespace qeval::test
