// Divergence on a text, alone and as a part of a comparison of ready-made models.
#include <filesystem>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace qeval::test {
namespace {

using nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class DivergenceCli : public Cli {
 protected:
  DivergenceCli() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += fmt::format("Line {} of a page. ", i * i);
    write("page.txt", text);
    write_damaged_model("other", "model.norm.weight", 3, 1.5F);
    write_damaged_model("another", "model.norm.weight", 3, 3.0F);
  }
  Outcome divergence(std::vector<std::string> more) const {
    std::vector<std::string> all{"divergence"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  }
  ordered_json json(const std::string& file) const { return ordered_json::parse(read(file)); }
};

TEST_F(DivergenceCli, AModelIsComparedWithItselfAndWithOthers) {
  const std::vector<std::string> arguments{"-m",        path("model"), "--with", path("model") + "=twin",
                                           "--with",    path("other"), "-f",     path("page.txt"),
                                           "--context", "64",          "-o",     path("out")};
  const Outcome outcome = divergence(arguments);
  expect_success(outcome);
  EXPECT_THAT(outcome.output, HasSubstr("twin"));
  EXPECT_THAT(outcome.output, HasSubstr("windows of up to 64, protocol qeval"));
  const ordered_json found = json("out/divergence.json");
  ASSERT_EQ(found["runs"].size(), 2U);
  const ordered_json& twin = found["runs"][0]["divergence"];
  EXPECT_EQ(found["runs"][0]["label"], "twin");
  EXPECT_EQ(twin["kl"]["value"], 0);
  EXPECT_EQ(twin["perplexity_ratio"]["value"], 1);
  EXPECT_EQ(twin["top1_agreement"]["value"], 1);
  EXPECT_EQ(found["runs"][0]["tied_for_best"], true);
  const ordered_json& other = found["runs"][1]["divergence"];
  EXPECT_GT(other["kl"]["value"], 0);
  EXPECT_EQ(found["runs"][1]["tied_for_best"], false);
  EXPECT_NE(found["runs"][1]["label"], "float");
  const std::string first = read("out/divergence.json");
  std::filesystem::remove_all(path("out"));
  expect_success(divergence(arguments));
  EXPECT_EQ(read("out/divergence.json"), first);
}

TEST_F(DivergenceCli, WritesAndReadsLlamasFile) {
  const Outcome live =
      divergence({"-m", path("model"), "--with", path("other"), "-f", path("page.txt"), "--context", "64",
                  "--protocol", "llama.cpp", "--kl-divergence-base", path("base.kld")});
  expect_success(live);
  EXPECT_THAT(live.output, HasSubstr("====== KL divergence statistics ======"));
  EXPECT_THAT(read("base.kld"), testing::StartsWith("_logits_"));
  const Outcome stored = divergence(
      {"--with", path("other"), "--protocol", "llama.cpp", "--kl-divergence-base", path("base.kld")});
  expect_success(stored);
  const auto statistics = [](const std::string& output) {
    const size_t first = output.find("chunk  "), last = output.find("Same top p:");
    return output.substr(first, last - first);
  };
  EXPECT_EQ(statistics(stored.output), statistics(live.output));
  expect_success(divergence({"-m", path("model"), "-f", path("page.txt"), "--context", "64", "--protocol",
                             "llama.cpp", "--kl-divergence-base", path("again.kld")}));
  EXPECT_EQ(read("again.kld"), read("base.kld"));
}

TEST_F(DivergenceCli, WrongUseIsOneLine) {
  const std::string page = path("page.txt"), model = path("model");
  expect_one_line(divergence({"-m", model, "-f", page}), kWrongUsage, "--with is required");
  expect_one_line(divergence({"-m", model, "-f", page, "--with", model + "@floats"}), kWrongUsage,
                  "arithmetic floats: unknown; accepted: float, fake, integer");
  expect_one_line(divergence({"-m", model, "-f", page, "--with", model + "="}), kWrongUsage, "label");
  expect_one_line(divergence({"-m", model, "-f", page, "--with", "nowhere"}), kFailed, "nowhere");
  expect_one_line(divergence({"-m", model, "--with", model}), kWrongUsage, "--file");
  expect_one_line(divergence({"-m", model, "--with", model, "-f", page, "--context", "100000"}), kWrongUsage,
                  "100000");
  expect_one_line(divergence({"-m", model, "--with", model, "-f", page, "--kl-divergence-base", "x"}),
                  kWrongUsage, "only with --protocol llama.cpp");
  expect_one_line(
      divergence({"--with", model, "-f", page, "--protocol", "llama.cpp", "--kl-divergence-base", page}),
      kWrongUsage, "--file");
  expect_one_line(divergence({"--with", model, "--protocol", "llama.cpp", "--kl-divergence-base", page}),
                  kFailed, "_logits_");
  write("short.txt", "Too short.");
  expect_one_line(divergence({"-m", model, "--with", model, "-f", path("short.txt"), "--context", "64",
                              "--protocol", "llama.cpp"}),
                  kFailed, "needs two chunks of 64");
  expect_one_line(divergence({"-m", model, "--with", model, "-f", page, "-o", model}), kFailed,
                  "choose another");
}

/// Raw text misjudges a chat model: of conversations its own turns are scored alone.
TEST_F(DivergenceCli, OfConversationsTheAssistantsTurnsAreScored) {
  write("model/chat_template.jinja",
        "{% for m in messages %}[{{ m.role }}]{{ m.content }};\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}");
  write("talk.jsonl",
        R"({"messages":[{"role":"user","content":"How many?"},{"role":"assistant","content":"Twelve"},)"
        R"({"role":"user","content":"Sure?"},{"role":"assistant","content":"Yes"}]})"
        "\n");
  const std::vector<std::string> arguments{"-m",     path("model"),      "--with", path("other"),
                                           "--chat", path("talk.jsonl"), "-o",     path("out")};
  const Outcome outcome = divergence(arguments);
  expect_success(outcome);
  // A token a byte: "Twelve;\n" and "Yes;\n", each a window.
  EXPECT_THAT(outcome.output, HasSubstr("talk.jsonl: 13 tokens predicted in 2 windows of up to"));
  EXPECT_THAT(outcome.output, HasSubstr("protocol chat"));
  EXPECT_EQ(json("out/divergence.json")["text"]["protocol"], "chat");
  const Outcome cut = divergence(
      {"-m", path("model"), "--with", path("other"), "--chat", path("talk.jsonl"), "--context", "40"});
  EXPECT_EQ(cut.status, 0);
  EXPECT_THAT(cut.error, HasSubstr("1 of 2 turns have more than 40 tokens"));
  expect_one_line(divergence({"-m", path("model"), "--with", path("other"), "--chat", path("talk.jsonl"),
                              "--context", "4"}),
                  kFailed, "talk.jsonl:1: message 2: the answer has 8 tokens, more than the 4 of --context");
  expect_one_line(divergence({"-m", path("model"), "--with", path("other"), "--chat", path("talk.jsonl"),
                              "-f", path("page.txt")}),
                  kWrongUsage, "not with --file");
  expect_one_line(divergence({"-m", path("model"), "--with", path("other"), "-f", path("page.txt"),
                              "--chat-template-args", "a=1"}),
                  kWrongUsage, "not used without --chat");
  expect_one_line(divergence({"-m", path("model"), "--with", path("other"), "--chat", path("talk.jsonl"),
                              "--chat-template-args", "messages=1"}),
                  kWrongUsage, "messages: the template has it from the conversation");
  expect_one_line(divergence({"-m", path("model"), "--with", path("other"), "--chat", path("page.txt")}),
                  kFailed, "page.txt");
}

TEST_F(DivergenceCli, TheLossesOfAFileAreSplitAndPlanned) {
  const std::string model = std::string(QEVAL_GOLDENS_DIR) + "/quantized/gguf-iq4-nl/model.gguf";
  const auto compare = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{
        "compare", "-m", model,        "--with", model + "@ggml=rounded", "-t",
        "piqa",    "-d", path("data"), "--text", path("page.txt"),        "--context",
        "32",      "-o", path("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    expect_success(outcome);
    return outcome.output;
  };
  // Its vocabulary has one token for all of the text; with its parts the base runs again, and four variants.
  EXPECT_THAT(compare({"--plan"}), testing::ContainsRegex("compare on the text +1 "));
  EXPECT_THAT(compare({"--plan", "--losses"}), testing::ContainsRegex("compare on the text +6 "));
  EXPECT_THAT(compare({"--losses"}), HasSubstr("(1 token)"));
  const ordered_json losses = json("out/divergence.json")["runs"][0]["losses"];
  EXPECT_EQ(losses["weights"], 0);
  EXPECT_GT(losses["activations"], 0);
  EXPECT_GT(losses["keys_and_values"], 0);
}

/// Who has ready-made files needed a command for each, and a report over all of them.
TEST_F(DivergenceCli, ReadyMadeModelsAreComparedByOneCommand) {
  const std::vector<std::string> arguments{"compare",
                                           "-m",
                                           path("model"),
                                           "--with",
                                           path("other"),
                                           "--with",
                                           path("another") + "@float=far",
                                           "-t",
                                           "piqa",
                                           "-d",
                                           path("data"),
                                           "--text",
                                           path("page.txt"),
                                           "--context",
                                           "64",
                                           "-o",
                                           path("out")};
  const Outcome outcome = run(arguments);
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  const ordered_json compare = json("out/compare.json");
  ASSERT_EQ(compare["entries"].size(), 3U);
  EXPECT_EQ(compare["entries"][0]["name"], "fp");
  EXPECT_NE(compare["entries"][0]["label"], "");
  EXPECT_EQ(compare["entries"][2]["label"], "far");
  EXPECT_EQ(compare["entries"][2]["results"], "results/far");
  const ordered_json text = json("out/divergence.json");
  ASSERT_EQ(text["runs"].size(), 2U);
  EXPECT_GT(text["runs"][1]["divergence"]["kl"]["value"], text["runs"][0]["divergence"]["kl"]["value"]);
  const std::string report = read("out/report.md");
  EXPECT_THAT(report, HasSubstr("Divergence from"));
  EXPECT_THAT(report, HasSubstr("pareto-size"));
  EXPECT_TRUE(std::filesystem::exists(path("out/report-pareto-size.svg")));
  EXPECT_THAT(report, Not(HasSubstr("MATRIX")));
  // What an entry's command says makes the entry's results.
  const auto commands = compare["entries"][1]["commands"].get<std::vector<std::string>>();
  ASSERT_EQ(commands.size(), 1U);
  EXPECT_THAT(commands[0], HasSubstr("--base"));
  // Again: nothing is left to do, and nothing changes.
  const std::string results = read("out/results.json"), divergences = read("out/divergence.json");
  expect_success(run(arguments));
  EXPECT_EQ(read("out/results.json"), results);
  EXPECT_EQ(read("out/divergence.json"), divergences);
  std::vector<std::string> other = arguments;
  other[6] = path("another") + "@float=near";
  expect_one_line(run(other), kFailed, "other settings");
  std::vector<std::string> calibrated = arguments;
  std::vector<std::string> split = arguments;
  split.emplace_back("--losses");
  expect_one_line(run(split), kWrongUsage, "--losses: none of the --with models is a GGUF file");
  split.erase(split.begin() + 11, split.begin() + 15);  // --text and --context
  expect_one_line(run(split), kWrongUsage, "--losses: not used without --text");
  calibrated.insert(calibrated.end(), {"--calibration", path("page.txt")});
  expect_one_line(run(calibrated), kWrongUsage, "--calibration: not used without --methods");
  expect_success(run({"report", path("out"), "--card", path("card.md")}));
  const std::string card = read("card.md");
  EXPECT_THAT(card, testing::StartsWith("---\nmodel-index:\n- name: "));
  EXPECT_THAT(card, HasSubstr("Recovery of accuracy"));
}

}  // namespace
}  // namespace qeval::test
