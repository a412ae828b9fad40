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
}

TEST_F(GenerationCli, ABaseOfTextsIsComparedByThem) {
  const Outcome kept = eval({"-t", "squad_completion,piqa", "-o", path("a"), "--keep-logprobs"});
  EXPECT_EQ(kept.status, 0);
  EXPECT_THAT(kept.error,
              HasSubstr("--keep-logprobs keeps nothing of tasks that generate (squad_completion)"));
  EXPECT_TRUE(std::filesystem::exists(path("a/logprobs_piqa.bin")));
  EXPECT_FALSE(std::filesystem::exists(path("a/logprobs_squad_completion.bin")));
  const Outcome compared = eval({"-t", "squad_completion,piqa", "-o", path("b"), "--base", path("a")});
  expect_success(compared);
  EXPECT_THAT(compared.output, AllOf(HasSubstr("free of loops"), HasSubstr("squad_completion")));
  EXPECT_TRUE(std::filesystem::exists(path("b/divergence_piqa.jsonl")));
  EXPECT_FALSE(std::filesystem::exists(path("b/divergence_squad_completion.jsonl")));
  for (const char* name : {"a", "b"}) expect_success(run({"verify", path(name)}));
  // Shards of both kinds are put together.
  for (const char* shard : {"1/2", "2/2"}) {
    const Outcome part = eval({"-t", "squad_completion,piqa", "-o", path(std::string("s") + shard[0]),
                               "--base", path("a"), "--keep-logprobs", "--shard", shard});
    EXPECT_EQ(part.status, 0) << part.error;
  }
  expect_success(run({"merge", path("s1"), path("s2"), "-o", path("merged")}));
  EXPECT_EQ(read("merged/samples_squad_completion.jsonl"), read("b/samples_squad_completion.jsonl"));
  EXPECT_EQ(read("merged/divergence_piqa.jsonl"), read("b/divergence_piqa.jsonl"));
  // Another prompt is another document.
  write("data/squad_completion/validation.jsonl", R"({"text": "The sea is", "value": "e"})"
                                                  "\n");
  expect_success(eval({"-t", "squad_completion", "-o", path("other")}));
  EXPECT_NE(eval({"-t", "squad_completion", "-o", path("c"), "--base", path("a")}).status, 0);
}

TEST_F(GenerationCli, CompareRunsTasksThatGenerate) {
  const std::vector<std::string> words{"compare",
                                       "-m",
                                       path("model"),
                                       "-t",
                                       "squad_completion",
                                       "--gen-kwargs",
                                       "max_gen_toks=5",
                                       "-d",
                                       path("data"),
                                       "-o",
                                       path("out"),
                                       "--methods",
                                       "rtn",
                                       "--schemes",
                                       "w8a8",
                                       "--samples",
                                       "4",
                                       "--sequence-length",
                                       "24",
                                       "--calibration",
                                       path("calibration.txt")};
  std::string text;
  for (int i = 0; i < 60; ++i) text += "Line " + std::to_string(i * 37 % 101) + " of a calibration text.\n";
  write("calibration.txt", text);
  const Outcome outcome = run(words);
  expect_success(outcome);
  const ordered_json compared = ordered_json::parse(read("out/results.json"));
  const ordered_json& texts = compared["runs"][0]["tasks"]["squad_completion"]["texts"];
  EXPECT_EQ(texts["documents"], 4);
  EXPECT_LE(texts["metrics"]["tokens"]["value"].get<double>(), 5);
  EXPECT_THAT(read("out/compare.json"), AllOf(HasSubstr("--gen-kwargs"), HasSubstr("max_gen_toks=5")));
  EXPECT_TRUE(texts["metrics"].contains("free_of_loops"));
}

TEST_F(GenerationCli, SettingsOfTheTaskCanBeOthers) {
  const auto texts = [&](const std::string& run) {
    std::vector<std::string> out;
    for (const ordered_json& line : samples(run + "/samples_squad_completion.jsonl")) {
      for (const ordered_json& text : line["resps"]) out.push_back(text[0].get<std::string>());
    }
    return out;
  };
  const auto with = [&](const std::string& settings, const std::string& run,
                        std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"-t", "squad_completion", "-o", path(run), "--gen-kwargs", settings});
    return eval(more);
  };
  expect_success(with("max_gen_toks=3", "short"));
  for (const ordered_json& line : samples("short/samples_squad_completion.jsonl")) {
    EXPECT_LE(line["request_tokens"][0], 3);
    EXPECT_EQ(line["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"], 3);
  }
  // Drawn texts depend on the seed, document and number alone.
  const std::string drawn = "do_sample=true,temperature=2,seed=7,repeats=3";
  expect_success(with(drawn, "a"));
  expect_success(with(drawn, "b", {"--batch-tokens", "3", "--threads", "1"}));
  EXPECT_EQ(texts("a").size(), 12U);
  EXPECT_EQ(texts("a"), texts("b"));
  EXPECT_NE(texts("a")[0], texts("a")[1]);
  expect_success(with("do_sample=true,temperature=2,seed=8,repeats=3", "c"));
  EXPECT_NE(texts("a"), texts("c"));
  expect_success(run({"verify", path("a")}));
  for (const char* shard : {"1/2", "2/2"})
    expect_success(with(drawn, std::string("s") + shard[0], {"--shard", shard}));
  expect_success(run({"merge", path("s1"), path("s2"), "-o", path("merged")}));
  EXPECT_EQ(read("merged/samples_squad_completion.jsonl"), read("a/samples_squad_completion.jsonl"));
  // Runs of other settings are not compared.
  expect_one_line(with("max_gen_toks=4", "d", {"--base", path("short")}), kFailed,
                  "squad_completion max_gen_toks (3 there, 4 here)");
  expect_success(with("max_gen_toks=4", "four"));
  expect_one_line(run({"report", path("short"), path("four"), "--baseline", path("short"), "-o", path("r")}),
                  kFailed, "cannot stand in one report: squad_completion max_gen_toks 3 and 4");
  EXPECT_THAT(read("merged/results.json"), HasSubstr("generation_kwargs"));
  expect_one_line(with("beams=2", "e"), kWrongUsage, "--gen-kwargs: beams is unknown");
  expect_one_line(with("repeats=100000000", "e"), kWrongUsage, "--gen-kwargs: repeats is");
  expect_one_line(with(",", "e"), kWrongUsage, "has no setting");
  const Outcome greedy = with("temperature=2,max_gen_toks=3", "greedy");
  EXPECT_EQ(greedy.status, 0);
  EXPECT_THAT(greedy.error, HasSubstr("temperature=2 has no effect where do_sample is false"));
  EXPECT_EQ(texts("greedy"), texts("short"));
  expect_one_line(eval({"-t", "sample_qa", "-o", path("f"), "--gen-kwargs", "max_gen_toks=3"}), kWrongUsage,
                  "--gen-kwargs: task sample_qa does not let the model write");
}

TEST_F(GenerationCli, ProgramsRunOnlyWhereThatIsWanted) {
  write(
      "data/mbpp/test.jsonl",
      R"({"text": "Add one.", "code": "x", "test_list": ["assert f(1) == 2", "assert f(2) == 3", "assert f(0) == 1"]})"
      "\n");
  expect_one_line(eval({"-t", "mbpp", "-o", path("run")}), kWrongUsage,
                  "task mbpp runs the programs that the model writes, in a sandbox; accepted with "
                  "--confirm-run-unsafe-code");
  const std::string texts = R"({"doc_id": 0, "text": "def f(x):\n  return x + 1\n"})";
  expect_one_line(run({"score", "--task", "mbpp", "-d", path("data")}, texts), kWrongUsage,
                  "--confirm-run-unsafe-code");
  const Outcome judged =
      run({"score", "--task", "mbpp", "-d", path("data"), "--confirm-run-unsafe-code"}, texts);
  if (judged.status != 0) GTEST_SKIP() << judged.error;  // no namespaces here
  EXPECT_THAT(judged.output, HasSubstr(R"("pass_at_1":1.0)"));
  EXPECT_THAT(run({"score", "--task", "mbpp", "-d", path("data"), "--confirm-run-unsafe-code"},
                  R"({"doc_id": 0, "text": "def f(x):\n  return x"})")
                  .output,
              HasSubstr(R"("pass_at_1":0.0)"));
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
