/// The texts that the model is asked, against what lm-evaluation-harness asked of it, byte for byte.

#include "eval/tasks/documents.h"

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "eval/engine/chat_template.h"
#include "eval/tasks/registry.h"
#include "tests/reference_data.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

const fs::path kReference = test::shared_data("reference/lm_eval"), kData = test::shared_data("data");

std::vector<fs::path> reference_files() {
  std::vector<fs::path> out;
  if (!fs::is_directory(kReference)) return out;
  for (const auto& entry : fs::directory_iterator(kReference)) out.push_back(entry.path());
  return out;
}

/// The reference's own acc and acc_norm follow from its log-likelihoods and our facts.
void check_accuracy(const Document& document, const nlohmann::json& sample) {
  const auto values = sample["loglikelihoods"].get<std::vector<double>>();
  if (values.size() < 2 || document.facts.gold.size() != 1 || !sample.contains("acc")) return;
  const auto best = [&](const auto& length) {
    size_t arg_max = 0;
    for (size_t i = 1; i < values.size(); ++i) {
      if (values[i] / length(i) > values[arg_max] / length(arg_max)) arg_max = i;
    }
    return static_cast<int64_t>(arg_max);
  };
  EXPECT_EQ(best([](size_t) { return 1.0; }) == document.facts.gold[0], sample["acc"] == 1.0);
  if (!sample.contains("acc_norm")) return;
  const auto chars = [&](size_t i) { return static_cast<double>(document.facts.choice_chars.at(i)); };
  EXPECT_EQ(best(chars) == document.facts.gold[0], sample["acc_norm"] == 1.0);
}

TEST(TaskReference, EveryRequestIsTheHarnesses) {
  if (reference_files().empty()) GTEST_SKIP() << "no " << kReference;
  size_t compared = 0;
  for (const fs::path& path : reference_files()) {
    const auto reference = nlohmann::json::parse(read_file(path));
    const std::string name = reference["task"];
    SCOPED_TRACE(name);
    const Selection selection = resolve_tasks(name);
    ASSERT_EQ(selection.tasks.size(), 1U);
    LoadOptions options{.data = kData};
    if (reference.contains("split")) options.split = reference["split"].get<std::string>();
    const LoadedTask loaded = load_documents(selection.tasks[0], options);
    for (const auto& sample : reference["samples"]) {
      const Document& document = loaded.documents.at(sample["doc_id"].get<size_t>());
      SCOPED_TRACE(document.doc_id);
      if (name == "wikitext") {
        EXPECT_EQ(document.facts.words, sample["words"].get<int64_t>());
        EXPECT_EQ(document.facts.bytes, sample["bytes"].get<int64_t>());
        EXPECT_NE(document.row["page"].get<std::string>().find(sample["title"].get<std::string>()),
                  std::string::npos);
        ++compared;
        continue;
      }
      const auto& arguments = sample["arguments"];
      ASSERT_EQ(document.requests.size(), arguments.size());
      for (size_t i = 0; i < arguments.size(); ++i) {
        EXPECT_EQ(document.requests[i].context, arguments[i][0].get<std::string>());
        EXPECT_EQ(document.requests[i].continuation, arguments[i][1].get<std::string>());
        ++compared;
      }
      EXPECT_EQ(document.target, sample["target"]);
      check_accuracy(document, sample);
    }
  }
  EXPECT_GT(compared, 2000U);
}

/// Odd rows for every task, made with what the harness's own definitions ask of them (make_odd_rows.py).
TEST(TaskReference, OddRowsAreAskedAsTheHarnessAsksThem) {
  const test::TemporaryFolder folder;
  const char* python = std::getenv("QEVAL_PYTHON");  // one that has lm_eval, if the first on the path has not
  const auto log = folder.path() / "log";
  const std::string command = fmt::format("'{}' '{}/python/make_odd_rows.py' '{}' > '{}' 2>&1",
                                          python == nullptr ? "python3" : python, QEVAL_TESTS_DIR,
                                          folder.path().string(), log.string());
  const int status = std::system(command.c_str());
  const std::string said = read_file(log);
  if (said.starts_with("skip") || said.find("not found") != std::string::npos) GTEST_SKIP() << said;
  ASSERT_EQ(status, 0) << said;
  std::istringstream lines(read_file(folder.path() / "expected.jsonl"));
  ChatRenderer chat(load_chat_template(folder.path() / "template.jinja"), nlohmann::ordered_json::object());
  std::string line, loaded_key;
  LoadedTask loaded;
  size_t compared = 0;
  while (std::getline(lines, line)) {
    const auto expected = nlohmann::json::parse(line);
    const std::string name = expected["task"];
    LoadOptions options{.data = folder.path() / "data",
                        .split = expected["split"].get<std::string>(),
                        .num_fewshot = expected["shots"].get<int64_t>()};
    options.style.system_instruction = expected["system"].get<std::string>();
    if (expected["chat"].is_string()) {
      options.style.chat = [&](const nlohmann::ordered_json& messages) { return chat(messages); };
      options.style.fewshot_as_multiturn = expected["chat"] == "turns";
    }
    const std::string key = fmt::format("{}, {} examples, system \"{}\", chat {}", name, *options.num_fewshot,
                                        options.style.system_instruction, expected["chat"].dump());
    if (key != loaded_key) loaded = load_documents(resolve_tasks(name).tasks.at(0), options);
    loaded_key = key;
    const Document& document = loaded.documents.at(expected["doc_id"].get<size_t>());
    SCOPED_TRACE(fmt::format("{}, document {}: {}", key, document.doc_id, document.row.dump()));
    ASSERT_EQ(document.requests.size(), expected["arguments"].size());
    for (size_t i = 0; i < document.requests.size(); ++i) {
      EXPECT_EQ(document.requests[i].context, expected["arguments"][i][0].get<std::string>());
      EXPECT_EQ(document.requests[i].continuation, expected["arguments"][i][1].get<std::string>());
      ++compared;
    }
    if (expected.contains("gold")) {
      EXPECT_EQ(document.facts.gold.front(), expected["gold"].get<int64_t>());
    }
    if (expected.contains("words")) {
      EXPECT_EQ(document.facts.words, expected["words"].get<int64_t>());
      EXPECT_EQ(document.facts.bytes, expected["bytes"].get<int64_t>());
    }
  }
  EXPECT_GT(compared, 5000U);
}

// Whole sets: every row of the public copies can be asked, none is lost, and reading them is quick.
TEST(TaskReference, WholeSetsLoad) {
  if (reference_files().empty()) GTEST_SKIP() << "no " << kReference;
  const std::vector<std::pair<const char*, int64_t>> sizes = {
      {"wikitext", 62},         {"arc_challenge", 1172},  {"arc_easy", 2376},      {"hellaswag", 10042},
      {"piqa", 1838},           {"winogrande", 1267},     {"openbookqa", 500},     {"boolq", 3270},
      {"sciq", 1000},           {"commonsense_qa", 1221}, {"copa", 100},           {"social_iqa", 1954},
      {"lambada_openai", 5153}, {"truthfulqa_mc1", 817},  {"truthfulqa_mc2", 817}, {"mmlu", 14042}};
  for (const auto& [name, size] : sizes) {
    SCOPED_TRACE(name);
    int64_t documents = 0;
    for (const Task& task : resolve_tasks(name).tasks) {
      LoadOptions options{.data = kData};
      if (task.name == "sciq") options.split = "validation";
      documents += static_cast<int64_t>(load_documents(task, options).documents.size());
    }
    EXPECT_EQ(documents, size);
  }
}

}  // namespace
}  // namespace qeval::eval
