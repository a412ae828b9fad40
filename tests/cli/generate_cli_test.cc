#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace qeval::test {
namespace {

using testing::HasSubstr;

class GenerateCli : public Cli {
 protected:
  Outcome generate(std::vector<std::string> arguments, std::string_view input = "") const {
    const std::vector<std::string> common{"generate", "-m", path("model"), "-n", "6", "--ignore-eos"};
    arguments.insert(arguments.begin(), common.begin(), common.end());
    return run(arguments, input);
  }
  std::vector<int> ids(const std::vector<std::string>& arguments, std::string_view input = "") const {
    const Outcome outcome = generate(arguments, input);
    expect_success(outcome);
    return nlohmann::json::parse(outcome.output).get<std::vector<int>>();
  }
};

/// Each greedy token is the arg-max that `score` reports for the text so far.
TEST_F(GenerateCli, GreedyTokensAreTheArgMaxOfScoring) {
  const std::vector<int> answer = ids({"-p", "Hello", "--ids"});
  ASSERT_EQ(answer.size(), 6U);
  nlohmann::json request{{"id", 1}, {"context_ids", {'H', 'e', 'l', 'l', 'o'}}, {"continuation_ids", answer}};
  const Outcome scored = run({"score", "-m", path("model")}, request.dump() + "\n");
  expect_success(scored);
  const auto line = nlohmann::json::parse(scored.output);
  EXPECT_EQ(line["top1"].get<std::vector<int>>(), answer);
  EXPECT_EQ(line["is_greedy"], true);
}

TEST_F(GenerateCli, ThePromptMayComeFromStandardInput) {
  EXPECT_EQ(ids({"--ids"}, "Hello"), ids({"-p", "Hello", "--ids"}));
}

TEST_F(GenerateCli, SamplingIsSeeded) {
  const std::vector<std::string> sampled{"-p", "Hello", "--ids", "--temperature", "2", "--seed"};
  const auto with_seed = [&](const char* seed) {
    std::vector<std::string> arguments = sampled;
    arguments.emplace_back(seed);
    return ids(arguments);
  };
  EXPECT_EQ(with_seed("1"), with_seed("1"));
  EXPECT_NE(with_seed("1"), with_seed("2"));
}

TEST_F(GenerateCli, StatsSayWhatItCost) {
  const Outcome outcome = generate({"-p", "Hello", "--stats"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.error, HasSubstr("tokens/s"));
  EXPECT_THAT(outcome.error, HasSubstr("MiB"));
}

TEST_F(GenerateCli, WhatCannotBeDoneIsNamed) {
  expect_one_line(generate({"-p", ""}), kFailed, "empty");
  expect_one_line(generate({"-p", "x", "--chat"}), kFailed, "has no chat template");
  expect_one_line(generate({"-p", "x", "--system", "y"}), kWrongUsage, "--chat");
  expect_one_line(generate({"-p", "x", "--temperature", "-1"}), kWrongUsage, "temperature");
  expect_one_line(generate({"-p", std::string(1000, 'x')}), kFailed, "--max-length");
}

// The prompt is what the model's own template makes of the messages.
TEST_F(GenerateCli, AMessageIsPutIntoTheModelsTemplate) {
  write("model/chat_template.jinja",
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ mark }}{% if add_generation_prompt %}!{% endif "
        "%}");
  EXPECT_EQ(ids({"-p", "Hi", "--chat", "--ids"}), ids({"-p", "Hi!", "--ids"}));
  EXPECT_EQ(ids({"-p", "Hi", "--chat", "--system", "Be", "--chat-template-args", "mark=7,x=true", "--ids"}),
            ids({"-p", "BeHi7!", "--ids"}));
  write("model/chat_template.jinja", "\n{{ raise_exception('no system role') }}");
  expect_one_line(generate({"-p", "x", "--chat"}), kFailed, "chat_template.jinja, line 2: no system role");
  std::filesystem::remove(path("model/chat_template.jinja"));
  std::filesystem::create_directories(path("model/additional_chat_templates"));
  write("model/additional_chat_templates/short.jinja", "{{ messages[0].content }}");
  EXPECT_EQ(ids({"-p", "Hi", "--chat", "short", "--ids"}), ids({"-p", "Hi", "--ids"}));
  expect_one_line(generate({"-p", "x", "--chat"}), kFailed, "accepted: short");
}

TEST_F(GenerateCli, TemplatesAreRenderedByLines) {
  write("chat.jinja",
        "{{ bos_token }}{{ messages[0].content }}{{ strftime_now('%A') }}{{ x }}"
        "{{ raise_exception('two') if messages[1] }}");
  const Outcome outcome =
      run({"template", path("chat.jinja")},
          R"({"messages": [{"content": "Hü"}], "bos_token": "<s>", "now": "2026-01-02T03:04:05"})"
          "\n"
          R"({"messages": [{}, {"content": "b"}], "arguments": {"x": 1}})"
          "\n");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.output, "\"<s>HüFriday\"\n{\"error\":\"two\"}\n");
  EXPECT_THAT(outcome.error, HasSubstr("line 2: "));
  EXPECT_THAT(outcome.error, HasSubstr("chat.jinja, line 1: two"));
  expect_one_line(run({"template", path("chat.jinja")}, R"({"message": []})"), kFailed,
                  "line 1: message: unknown");
  expect_one_line(run({"template", path("chat.jinja")}, "[1]"), kFailed, "not a JSON object");
  expect_one_line(run({"template", path("chat.jinja")}, R"({"messages": [], "now": "today"})"), kFailed,
                  "now: today");
  expect_one_line(run({"template", path("model")}, "{}"), kFailed, "has no chat template");
  expect_one_line(run({"template", path("chat.jinja"), "--name", "a"}), kFailed, "no named templates");
  write("chat.jinja", "{% if %}");
  EXPECT_THAT(run({"template", path("chat.jinja")}, R"({"messages": []})").output,
              HasSubstr("Expected an expression"));
}

// A clone without its large files, by Git LFS or what it was called first.
TEST_F(GenerateCli, GitLfsPointersBesideTheWeightsAreNamed) {
  for (const char* name :
       {"generation_config.json", "chat_template.jinja", "chat_template.json", "quantize.json"}) {
    const std::string file = std::string("model/") + name;
    write(file, "version https://hawser.github.com/spec/v1\noid sha256:0\nsize 9\n");
    expect_one_line(run({"generate", "-m", path("model"), "-n", "1"}, "a"), kFailed,
                    std::string(name) + ": a Git LFS pointer");
    expect_one_line(run({"score", "-m", path("model")}, R"({"id": 1, "context": "a", "continuation": "b"})"),
                    kFailed, std::string(name) + ": a Git LFS pointer");
    std::filesystem::remove(path(file));
  }
}

}  // namespace
}  // namespace qeval::test
