// Rotations, position 0 apart and what learns from there, from the command line.
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quantize_fixture.h"

namespace qeval::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class RotatedCli : public QuantizeCli {};

/// What a rotation and a first token apart are asked for, made, said and refused by.
TEST_F(RotatedCli, RotationsAndTheFirstTokenAreSettings) {
  expect_success(quantize("rotated", {"--method", "rotate", "--rotate-keys", "--seed", "5"}));
  const nlohmann::json settings = json("rotated/quantize.json")["settings"];
  EXPECT_EQ(settings["rotate"], "online");
  EXPECT_EQ(settings["rotate_keys"], true);
  EXPECT_EQ(settings["rotate_seed"], 5);
  EXPECT_EQ(settings["first_token"], "ranges");
  EXPECT_EQ(settings["range"], "mse");
  EXPECT_TRUE(json("rotated/act_dict.json")["model.layers.0.mlp.w2"]["first_token"].contains("input"));
  const Outcome inspected = run({"inspect", "-m", path("rotated"), "--points"});
  EXPECT_THAT(inspected.output, AllOf(HasSubstr("residual stream (R1), values (R2)"), HasSubstr("(R3)"),
                                      HasSubstr("(R4)"), HasSubstr("at position 0")));
  for (const std::string arithmetic : {"fake", "integer", "float"}) {
    expect_success(run({"score", "-m", path("rotated"), "--arithmetic", arithmetic},
                       "{\"id\": 1, \"context_ids\": [3], \"continuation_ids\": [4, 5]}\n"));
  }
  // Below 8 bits rounding to nearest is what would cost most.
  EXPECT_FALSE(settings.contains("rounding"));
  expect_success(quantize("rounded", {"--method", "rotate", "--scheme", "w4a8"}));
  EXPECT_EQ(json("rounded/quantize.json")["settings"]["rounding"], "gptq");
  EXPECT_EQ(json("rounded/quantize.json")["settings"]["weight_range"], "mse");
  expect_success(quantize("nearest", {"--method", "rotate", "--scheme", "w4a8", "--rounding", "nearest"}));
  EXPECT_FALSE(json("nearest/quantize.json")["settings"].contains("rounding"));
  EXPECT_NE(scores("rounded", "rounded-eval"), scores("nearest", "nearest-eval"));
  expect_success(quantize("weights", {"--method", "rotate", "--scheme", "w4a16", "--first-token", "shared"}));
  EXPECT_EQ(json("weights/quantize.json")["settings"]["rounding"], "gptq");
  expect_success(quantize("weights-nearest", {"--method", "rotate", "--scheme", "w4a16", "--first-token",
                                              "shared", "--rounding", "nearest"}));
  expect_one_line(quantize("out", {"--rotate", "offline", "--rotate-block", "4"}), 2, "--rotate-block");
  expect_one_line(quantize("rotated", {"--scheme", "w4a16", "--first-token", "ranges"}), 1, "--first-token");
  EXPECT_EQ(json("rotated/quantize.json")["settings"], settings);  // a refusal leaves what was finished
  expect_one_line(
      run({"quantize", "-m", path("model"), "--method", "rotate", "--scheme", "w8a8", "--calibration",
           path("calibration.txt"), "--samples", "2", "--sequence-length", "1", "-o", path("out")}),
      1, "samples of one token");
}

/// A prefix is part of the checkpoint, of every sequence that it computes, and of what it is compared with.
TEST_F(RotatedCli, APrefixStandsBeforeEverySequence) {
  expect_success(quantize("prefix", {"--method", "rotate", "--rotate-keys", "--first-token", "prefix"}));
  EXPECT_EQ(json("prefix/quantize.json")["settings"]["first_token"], "prefix");
  const int token = json("prefix/prefix.json")["token"];
  EXPECT_FALSE(json("prefix/act_dict.json")["model.layers.0.mlp.w2"].contains("first_token"));
  EXPECT_THAT(run({"inspect", "-m", path("prefix")}).output,
              HasSubstr("a prefix: the key and value of token " + std::to_string(token)));
  const auto score = [&](const std::string& arithmetic, int first) {
    return run(
        {"score", "-m", path("prefix"), "--arithmetic", arithmetic},
        "{\"id\": 1, \"context_ids\": [" + std::to_string(first) + ", 3], \"continuation_ids\": [4, 5]}\n");
  };
  for (const std::string arithmetic : {"fake", "integer"}) {
    expect_success(score(arithmetic, token));
    const Outcome other = score(arithmetic, token - 1);
    EXPECT_THAT(other.output + other.error,
                HasSubstr("prefix is the key and value of token " + std::to_string(token)));
    expect_success(run({"eval", "-m", path("prefix"), "-d", path("data"), "-t", "piqa", "--arithmetic",
                        arithmetic, "-o", path("prefix-" + arithmetic)}));
    EXPECT_EQ(json("prefix-" + arithmetic + "/results.json")["add_bos_token"], "always");
    expect_success(run({"generate", "-m", path("prefix"), "--arithmetic", arithmetic, "-p", "a", "-n", "3"}));
  }
  // The base has another token in front, unless it is told to have the same.
  expect_success(run({"eval", "-m", path("model"), "-d", path("data"), "-t", "piqa", "-o", path("base")}));
  expect_success(run({"eval", "-m", path("model"), "-d", path("data"), "-t", "piqa", "-o", path("base-bos"),
                      "--add-bos-token", "always"}));
  expect_one_line(run({"report", path("base"), path("prefix-fake"), "-o", path("report.md")}), 1,
                  "add-bos-token");
  expect_success(run({"report", path("base-bos"), path("prefix-fake"), "-o", path("report.md")}));
  expect_success(run({"divergence", "-m", path("model"), "--with", path("prefix"), "--with",
                      path("prefix") + "@integer", "-f", path("calibration.txt"), "--context", "32"}));
  expect_one_line(run({"divergence", "-m", path("model"), "--with", path("prefix"), "--protocol", "qeval",
                       "-f", path("calibration.txt")}),
                  2, "accepted with them: qeval-bos");
  expect_one_line(run({"divergence", "-m", path("model"), "--with", path("prefix"), "--protocol", "llama.cpp",
                       "--context", "8", "-f", path("calibration.txt")}),
                  1, "window 1 begins with token");
  // A comparison with it scores its base so from the start; what would not is refused before anything is
  // scored.
  expect_success(run({"compare", "-m", path("model"), "--with", path("prefix"), "-d", path("data"), "-t",
                      "piqa", "-o", path("compared")}));
  EXPECT_EQ(json("compared/results/fp/results.json")["add_bos_token"], "always");
  expect_one_line(run({"compare", "-m", path("model"), "--with", path("prefix"), "-d", path("data"), "-t",
                       "piqa", "--add-bos-token", "true", "-o", path("other")}),
                  2, path("prefix"));
  EXPECT_FALSE(std::filesystem::exists(path("other/results")));
  expect_one_line(
      run({"eval", "-m", path("prefix"), "-d", path("data"), "-t", "piqa", "--add-bos-token", "false"}), 2,
      "--add-bos-token");
  // Without its constants it is not what was measured.
  std::filesystem::remove(path("prefix/prefix.json"));
  expect_one_line(run({"inspect", "-m", path("prefix")}), 1, "prefix.json");
  expect_one_line(quantize("out", {"--scheme", "w4a16", "--first-token", "prefix"}), 1,
                  "--first-token prefix");
}

/// Learning behind rotations, with position 0 apart, before rounding and behind it.
TEST_F(RotatedCli, LearningTakesRotatedModelsAndCodes) {
  const auto settings = [&](std::vector<std::string> more) {
    const std::vector<std::string> common{"--scheme", "w4a8-g8", "--rotate", "online",     "--first-token",
                                          "ranges",   "--range", "mse",      "--rounding", "gptq"};
    more.insert(more.begin(), common.begin(), common.end());
    return more;
  };
  const std::vector<std::string> learned{
      "--method", "mobilequant", "--no-smooth", "--loss", "logits", "--epochs", "3"};
  expect_success(quantize("start", settings({})));
  std::vector<std::string> first = learned;
  first.emplace_back("--round-first");
  expect_success(quantize("first", settings(first)));
  EXPECT_EQ(json("first/quantize.json")["settings"]["round_first"], true);
  EXPECT_EQ(json("first/quantize.json")["settings"]["first_token"], "ranges");
  EXPECT_TRUE(json("first/act_dict.json")["model.layers.0.mlp.w2"]["first_token"].contains("input"));
  EXPECT_NE(scores("first", "first-eval"), scores("start", "start-eval"));
  expect_success(run({"score", "-m", path("first"), "--arithmetic", "integer"},
                     "{\"id\": 1, \"context_ids\": [3], \"continuation_ids\": [4, 5]}\n"));
  // Groups are no grids that clipping is learned of; a range for each channel is.
  expect_one_line(quantize("out", settings(learned)), 1,
                  "learned methods take weights per tensor or per channel");
  std::vector<std::string> prefixed = settings(first);
  std::ranges::replace(prefixed, "ranges", "prefix");
  expect_success(quantize("prefixed", prefixed));
  EXPECT_NE(json("prefixed/prefix.json")["layers"][0]["key"],
            json("prefixed/prefix.json")["layers"][0]["value"]);
  scores("prefixed", "prefixed-eval");
  std::vector<std::string> last = learned;
  last.insert(last.end(),
              {"--scheme", "w4a8", "--first-token", "ranges", "--rotate", "online", "--rounding", "gptq"});
  expect_success(quantize("last", last));
  EXPECT_FALSE(json("last/quantize.json")["settings"].contains("round_first"));
  expect_one_line(quantize("out", {"--method", "mobilequant", "--round-first"}), 1, "--round-first");
  expect_one_line(quantize("out", {"--method", "lrl", "--round-first", "--rounding", "gptq"}), 2,
                  "--round-first");
}

/// A preset that is more than rates: what it makes of the rest, and what is said beside it stands.
TEST_F(RotatedCli, NearLosslessIsARecipe) {
  expect_success(quantize("near", {"--preset", "near-lossless", "--scheme", "w4a8", "--epochs", "1"}));
  const nlohmann::json record = json("near/quantize.json"), settings = record["settings"];
  EXPECT_EQ(record["method"], "mobilequant");
  for (const auto& [key, value] : std::map<std::string, nlohmann::json>{{"rotate", "online"},
                                                                        {"rotate_keys", true},
                                                                        {"first_token", "ranges"},
                                                                        {"range", "mse"},
                                                                        {"rounding", "gptq"},
                                                                        {"weight_range", "mse"},
                                                                        {"weight_per_channel", true},
                                                                        {"smooth", false},
                                                                        {"round_first", true},
                                                                        {"loss", "logits"},
                                                                        {"lrl_relative", true}})
    EXPECT_EQ(settings[key], value) << key;
  EXPECT_GT(settings["code_lr"], 0);
  expect_success(quantize("less", {"--method", "mobilequant", "--preset", "near-lossless", "--epochs", "1",
                                   "--first-token", "shared", "--rotate", "offline", "--range", "minmax"}));
  const nlohmann::json less = json("less/quantize.json")["settings"];
  EXPECT_FALSE(less.contains("first_token"));
  EXPECT_EQ(less["rotate"], "offline");
  EXPECT_EQ(less["rotate_keys"], false);
  EXPECT_EQ(less["range"], "minmax");
  EXPECT_FALSE(less.contains("code_lr"));  // of w8a8
  expect_one_line(quantize("out", {"--preset", "near-lossless", "--code-lr", "0.1"}), 2,
                  "--code-lr: codes of 8 bits stay; accepted: 0, or weights of fewer than 8 bits");
  expect_one_line(quantize("out", {"--method", "mobilequant", "--scheme", "w4a8", "--code-lr", "0.1"}), 2,
                  "--code-lr: not used without --round-first");
  expect_one_line(quantize("out", {"--method", "rtn", "--preset", "near-lossless"}), 2,
                  "--preset: not used by method rtn");
  expect_one_line(quantize("out", {"--preset", "near-lossless", "--alpha", "0.5"}), 2,
                  "--alpha: not used with --preset near-lossless");
  expect_one_line(quantize("out", {"--preset", "near-lossless", "--rounding", "nearest"}), 1,
                  "--round-first");
}

/// What quantizing refuses is refused before the base is scored.
TEST_F(RotatedCli, SamplesThatNoMethodCanUseAreRefusedByThePlan) {
  write("ids.jsonl", "[5]\n[6]\n");
  expect_one_line(
      run({"compare", "-m", path("model"), "-d", path("data"), "-t", "piqa", "--methods", "rotate",
           "--schemes", "w8a8", "--calibration-ids", path("ids.jsonl"), "-o", path("out"), "--plan"}),
      1, "--first-token ranges: samples of one token have no other positions to measure");
}

}  // namespace
}  // namespace qeval::test
