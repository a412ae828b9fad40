// qeval eval of tasks that generate, and prompts in chat templates: what is written, resumed, compared and
// verified.
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace qeval::test {
namespace {

using nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

class GenerationCli : public Cli {
 protected:
  GenerationCli() {
    std::string rows;
    for (const char* text : {"The sky is", "The sky is blue and", "Water", "The sky"})
      rows += std::string(R"({"text": ")") + text + R"(", "value": "e"})" + "\n";
    write("data/squad_completion/validation.jsonl", rows);
    write("model/chat_template.jinja",
          "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ mark }}{% endfor %}{% if "
          "add_generation_prompt "
          "%}[assistant]{% endif %}");
  }
  ordered_json results(const std::string& run) const {
    return ordered_json::parse(read(run + "/results.json"));
  }
  std::vector<ordered_json> samples(const std::string& file) const {
    std::vector<ordered_json> out;
    std::istringstream lines(read(file));
    for (std::string line; std::getline(lines, line);) out.push_back(ordered_json::parse(line));
    return out;
  }
};

TEST_F(GenerationCli, TextsAreWrittenJudgedAndVerified) {
  expect_success(eval({"-t", "squad_completion", "-o", path("run")}));
  const auto lines = samples("run/samples_squad_completion.jsonl");
  ASSERT_EQ(lines.size(), 4U);
  for (const ordered_json& line : lines) {
    const std::string text = line["resps"][0][0];
    EXPECT_EQ(line["contains"], text.find_first_of("eE") == std::string::npos ? 0.0 : 1.0);
    EXPECT_EQ(line["arguments"]["gen_args_0"]["arg_0"], line["doc"]["text"]);
    EXPECT_EQ(line["arguments"]["gen_args_0"]["arg_1"]["until"][0], "\n\n");
    EXPECT_LE(line["request_tokens"][0], 48);
  }
  EXPECT_TRUE(results("run")["results"]["squad_completion"].contains("contains,none"));
  expect_success(run({"verify", path("run")}));
  // What one batch of everything writes, many small ones write, too.
  expect_success(
      eval({"-t", "squad_completion", "-o", path("small"), "--batch-tokens", "3", "--threads", "1"}));
  EXPECT_EQ(read("small/samples_squad_completion.jsonl"), read("run/samples_squad_completion.jsonl"));
}

TEST_F(GenerationCli, ARunThatWasStoppedGoesOn) {
  expect_success(eval({"-t", "squad_completion", "-o", path("whole")}));
  expect_success(eval({"-t", "squad_completion", "-o", path("part")}));
  // As if it had been stopped behind the second document.
  std::istringstream lines(read("part/samples_squad_completion.jsonl"));
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, second);
  write("part/journal_squad_completion.jsonl", second + "\n" + first.substr(0, 20));
  std::filesystem::remove(path("part/samples_squad_completion.jsonl"));
  std::filesystem::remove(path("part/results.json"));
  expect_one_line(eval({"-t", "squad_completion", "-o", path("part")}), kFailed, "--resume");
  expect_success(eval({"-t", "squad_completion", "-o", path("part"), "--resume"}));
  EXPECT_EQ(read("part/samples_squad_completion.jsonl"), read("whole/samples_squad_completion.jsonl"));
}

TEST_F(GenerationCli, RunsThatGenerateAreCompared) {
  expect_success(eval({"-t", "squad_completion", "-o", path("a")}));
  expect_success(eval({"-t", "squad_completion", "-o", path("b")}));
  const Outcome outcome =
      run({"report", path("a"), path("b"), "--baseline", path("a"), "-o", path("report.md")});
  expect_success(outcome);
  EXPECT_THAT(read("report.md"), HasSubstr("contains"));
  expect_one_line(eval({"-t", "squad_completion", "-o", path("c"), "--keep-logprobs"}), kFailed,
                  "task squad_completion: texts are generated");
}

TEST_F(GenerationCli, StoredTextsAreJudgedWithoutAModel) {
  const Outcome outcome =
      run({"score", "--task", "squad_completion", "-d", path("data")},
          "{\"doc_id\": 1, \"text\": \"ME\"}\n{\"doc_id\": 0, \"resps\": [[\"none\"]], \"doc\": 1}\n"
          "{\"doc_id\": 2, \"text\": \"x\"}\n{\"doc_id\": 2, \"text\": \"x\"}\n");
  expect_success(outcome);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr(R"({"doc_id":0,"filtered":{"none":"none"},"contains":1.0})"),
                                    HasSubstr(R"({"doc_id":2,"filtered":{"none":"x"},"contains":0.0})"),
                                    HasSubstr(R"("documents":3,"contains,none":0.666)")));
  const auto refused = [&](const std::string& input) {
    return run({"score", "--task", "squad_completion", "-d", path("data")}, input);
  };
  expect_one_line(refused(""), kFailed, "no text to judge");
  expect_one_line(refused("{\"doc_id\": 4, \"text\": \"x\"}\n"), kFailed, "line 1: doc_id is 4");
  expect_one_line(refused("{\"doc_id\": 1, \"text\": \"x\"}\n{\"doc_id\": 1, \"text\": \"y\"}\n"), kFailed,
                  "two texts");
  expect_one_line(run({"score", "--task", "piqa"}), kWrongUsage, "log-likelihoods");
  expect_one_line(run({"score", "--task", "squad_completion", "-m", path("model")}), kWrongUsage, "--model");
  expect_one_line(run({"score", "-m", path("model"), "--split", "test"}), kWrongUsage, "--split");
}

TEST_F(GenerationCli, PromptsAreConversations) {
  const std::vector<std::string> chat{
      "-t",    "piqa", "--apply-chat-template", "--system-instruction", "Be brief.", "--chat-template-args",
      "mark=!"};
  auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), chat.begin(), chat.end());
    return eval(more);
  };
  expect_success(with({"-o", path("run")}));
  const ordered_json line = samples("run/samples_piqa.jsonl").at(0);
  EXPECT_EQ(line["arguments"]["gen_args_0"]["arg_0"],
            "[system]Be brief.![user]Question: Cool the tea\nAnswer:![assistant]");
  EXPECT_EQ(line["arguments"]["gen_args_0"]["arg_1"], "Wait.");
  const ordered_json results = this->results("run");
  EXPECT_EQ(results["system_instruction"], "Be brief.");
  EXPECT_THAT(results["chat_template"].get<std::string>(), HasSubstr("[assistant]"));
  EXPECT_EQ(results["chat_template_args"]["mark"], "!");
  EXPECT_EQ(results["fewshot_as_multiturn"], true);
  expect_success(run({"verify", path("run")}));
  // Another protocol than plain prompts, and than other settings.
  expect_success(eval({"-t", "piqa", "-o", path("plain")}));
  EXPECT_THAT(
      run({"report", path("run"), path("plain"), "--baseline", path("plain"), "-o", path("r.md")}).error,
      HasSubstr("system_instruction"));
  expect_one_line(with({"-o", path("run"), "--fewshot-as-multiturn", "false"}), kFailed,
                  "fewshot_as_multiturn (true there, false here)");
}

TEST_F(GenerationCli, WhatChatCannotDoIsNamed) {
  expect_one_line(eval({"-t", "piqa", "--fewshot-as-multiturn"}), kWrongUsage,
                  "--fewshot-as-multiturn: not used without --apply-chat-template");
  expect_one_line(eval({"-t", "piqa", "--apply-chat-template", "--fewshot-as-multiturn", "maybe"}),
                  kWrongUsage, "--fewshot-as-multiturn: maybe: unknown; accepted: true, false");
  expect_one_line(eval({"-t", "piqa", "--apply-chat-template", "--chat-template-args", "x"}), kWrongUsage,
                  "K=V");
  expect_one_line(eval({"-t", "piqa", "--apply-chat-template", "--protocol", "lm-eval-0.3"}), kWrongUsage,
                  "knows no chat templates");
  // A name for the only template is a warning, as in the harness.
  EXPECT_THAT(eval({"-t", "piqa", "--apply-chat-template", "short"}).error, HasSubstr("is used as short"));
  write("model/chat_template.jinja",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ "
        "m.content "
        "}}{% endfor %}");
  const Outcome without =
      eval({"-t", "piqa", "--apply-chat-template", "--system-instruction", "Be brief.", "-o", path("w")});
  EXPECT_EQ(without.status, 0);
  EXPECT_THAT(without.error, HasSubstr("refuses a conversation with a system message"));
  EXPECT_EQ(samples("w/samples_piqa.jsonl").at(0)["arguments"]["gen_args_0"]["arg_0"],
            "Question: Cool the tea\nAnswer:");
  write("model/chat_template.jinja", "{{ raise_exception('never') }}");
  expect_one_line(eval({"-t", "piqa", "--apply-chat-template"}), kFailed,
                  "chat_template.jinja, line 1: never");
  std::filesystem::remove(path("model/chat_template.jinja"));
  expect_one_line(eval({"-t", "piqa", "--apply-chat-template"}), kFailed, "has no chat template");
}

TEST_F(GenerationCli, ContextThatOverflowsLosesItsLeftEnd) {
  expect_success(eval({"-t", "squad_completion", "-o", path("run"), "--max-length", "52"}));
  for (const ordered_json& line : samples("run/samples_squad_completion.jsonl")) {
    EXPECT_EQ(line["input_tokens"][0], 4);
    EXPECT_EQ(line["truncated"][0], line["doc"]["text"].get<std::string>().size() - 4);
  }
  expect_one_line(eval({"-t", "squad_completion", "--max-length", "48"}), kFailed,
                  "--max-length 48 leaves no room for a prompt");
}

}  // namespace
}  // namespace qeval::test
