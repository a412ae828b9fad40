// Quantizing from the command line: what is written is what is evaluated, inspected and continued.
#include <csignal>
#include <filesystem>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "quantize_fixture.h"

namespace qeval::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST_F(QuantizeCli, EveryMethodWritesACheckpointThatEvalSimulates) {
  const nlohmann::json base = scores("model", "float");
  for (const std::string method :
       {"rtn", "gptq", "awq", "smoothquant", "omniquant", "lrl", "mobilequant", "rotate"}) {
    expect_success(quantize(method, {"--method", method, "--scheme", "w8a8"}));
    const nlohmann::json record = json(method + "/quantize.json");
    EXPECT_EQ(record["method"], method);
    EXPECT_EQ(record["calibration"]["tokens"], 4 * 32);
    EXPECT_NE(scores(method, method + "-eval"), base) << method;
    EXPECT_EQ(json(method + "-eval/results.json")["model"]["arithmetic"], "fake");
  }
  EXPECT_TRUE(std::filesystem::exists(path("mobilequant/training.jsonl")));
  EXPECT_FALSE(std::filesystem::exists(path("mobilequant/training_state.bin")));
}

TEST_F(QuantizeCli, RoundingComposesAndIsRecorded) {
  expect_success(quantize("plain", {"--method", "smoothquant", "--scheme", "w4a8-g8"}));
  expect_success(quantize("gptq", {"--method", "smoothquant", "--scheme", "w4a8-g8", "--rounding", "gptq"}));
  const nlohmann::json settings = json("gptq/quantize.json")["settings"];
  EXPECT_EQ(settings["rounding"], "gptq");
  EXPECT_EQ(settings["weight_range"], "minmax");
  EXPECT_EQ(settings["weight_group_size"], 8);
  EXPECT_FALSE(json("plain/quantize.json")["settings"].contains("rounding"));
  EXPECT_NE(scores("gptq", "gptq-eval"), scores("plain", "plain-eval"));
  // The float layout keeps the codes, too.
  expect_success(quantize("floats", {"--method", "smoothquant", "--scheme", "w4a8-g8", "--rounding", "gptq",
                                     "--format", "mobilequant"}));
  for (const std::string arithmetic : {"fake", "integer"}) {
    EXPECT_EQ(scores("floats", "floats-" + arithmetic, {"--arithmetic", arithmetic}),
              scores("gptq", "packed-" + arithmetic, {"--arithmetic", arithmetic}));
  }
  // Weights' grids follow --range, also where no activation has a range.
  expect_success(quantize("mse", {"--method", "gptq", "--scheme", "w3a16", "--range", "mse"}));
  EXPECT_EQ(json("mse/quantize.json")["settings"]["weight_range"], "mse");
  expect_one_line(quantize("x", {"--method", "gptq", "--rounding", "nearest"}), kWrongUsage,
                  "--rounding: nearest");
  expect_one_line(quantize("x", {"--scheme", "w8a8", "--weight-bits", "16", "--rounding", "gptq"}), 1,
                  "makes codes of weights of 8 bits or fewer, of which there are none");
  expect_one_line(quantize("x", {"--scheme", "w4a8-g7"}), 1, "group_size is 7");
  expect_one_line(quantize("x", {"--scheme", "w4a8-g0"}), kWrongUsage,
                  "each also with groups of N inputs, -gN");
  expect_one_line(
      run({"quantize", "-m", path("model"), "--method", "gptq", "--scheme", "w4a16", "-o", path("x")}),
      kWrongUsage, "--calibration or --calibration-ids is required: GPTQ");
}

/// Values below the smallest scale, 1e-5, vanished without a word.
TEST_F(QuantizeCli, TensorsThatTheirGridsHoldBadlyAreNamed) {
  const auto warns = [](const Outcome& outcome) {
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    EXPECT_THAT(outcome.error, HasSubstr("qeval: warning: values too small for the smallest scale, 1e-05"));
    EXPECT_THAT(outcome.error, HasSubstr(": model.layers.0.mlp.w1.output\n"));
  };
  const Outcome usual = quantize("usual", {"--scheme", "w8a8"});
  expect_success(usual);
  EXPECT_EQ(json("usual/quantize.json")["warnings"], nlohmann::json::array());
  nlohmann::json ranges = json("usual/act_dict.json");
  ranges["model.layers.0.mlp.w1"]["output"] = {-1e-4, 1e-4};
  write("ranges.json", ranges.dump());
  warns(quantize("small", {"--scheme", "w8a8", "--act-ranges", path("ranges.json")}));
  const nlohmann::json warnings = json("small/quantize.json")["warnings"];
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_EQ(warnings[0]["places"], nlohmann::json::array({"model.layers.0.mlp.w1.output"}));
  // Checkpoints of other tools have no record: the grids themselves are looked at.
  for (const std::string arithmetic : {"fake", "integer"}) {
    warns(run({"eval", "-m", path("small"), "-d", path("data"), "-t", "piqa", "--arithmetic", arithmetic}));
    warns(run({"score", "-m", path("small"), "--arithmetic", arithmetic},
              "{\"id\": 1, \"context_ids\": [3], \"continuation_ids\": [4]}\n"));
  }
}

/// The record had a hash of ranges that nothing computes with, too.
TEST_F(QuantizeCli, TheRecordInspectAndEvalNameTheSameQuantization) {
  const std::vector<std::vector<std::string>> runs{{"--scheme", "w8a8"},
                                                   {"--scheme", "w4a16"},
                                                   {"--scheme", "w8a16", "--range", "minmax"},
                                                   {"--method", "lrl", "--epochs", "1"},
                                                   {"--method", "rotate", "--rotate-keys"},
                                                   {"--first-token", "ranges", "--scheme", "w8a16"}};
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string folder = "checkpoint" + std::to_string(i);
    expect_success(quantize(folder, runs[i]));
    const std::string hash = json(folder + "/quantize.json")["quantization_hash"];
    const Outcome inspected = run({"inspect", "-m", path(folder)});
    EXPECT_THAT(inspected.output, HasSubstr(hash)) << i;
    scores(folder, folder + "-eval");
    EXPECT_EQ(json(folder + "-eval/results.json")["model"]["quantization_hash"], hash) << i;
  }
}

TEST_F(QuantizeCli, WithoutRoundingWeightsOrActivationsOnlyTheOtherIsLost) {
  // 16-bit weights, float activations: next to nothing is lost. 4-bit groups lose, dynamic 8 bits lose
  // little.
  const auto value = [](const nlohmann::json& all) { return std::stod(all[0][0][0].get<std::string>()); };
  const double base = value(scores("model", "float"));
  expect_success(quantize("fine", {"--scheme", "w4a16", "--weight-bits", "16"}));
  expect_success(quantize("coarse", {"--scheme", "w4a16", "--weight-group-size", "8"}));
  expect_success(
      run({"quantize", "-m", path("model"), "--scheme", "w8a8", "--act-dynamic", "-o", path("dynamic")}));
  const double fine = value(scores("fine", "fine-eval")), coarse = value(scores("coarse", "coarse-eval"));
  const double dynamic = value(scores("dynamic", "dynamic-eval"));
  EXPECT_NEAR(fine, base, 1e-2);
  EXPECT_GT(std::abs(coarse - base), 10 * std::abs(fine - base));
  EXPECT_NE(dynamic, base);
  EXPECT_NEAR(dynamic, base, 0.05 * std::abs(base));
}

TEST_F(QuantizeCli, AConvertedModelGivesTheSameScores) {
  expect_success(run({"convert", "-m", path("model"), "-o", path("unified")}));
  EXPECT_EQ(scores("unified", "b"), scores("model", "a"));
  expect_success(quantize("from-original", {}));
  expect_success(run({"quantize", "-m", path("unified"), "--calibration", path("calibration.txt"),
                      "--samples", "4", "--sequence-length", "32", "-o", path("from-unified")}));
  EXPECT_EQ(scores("from-unified", "d"), scores("from-original", "c"));
}

TEST_F(QuantizeCli, WarnsOfMoreSamplesThanTheTextHasRoomFor) {
  const auto samples = [&](const char* count, const std::string& output) {
    return run({"quantize", "-m", path("model"), "--calibration", path("calibration.txt"), "--samples", count,
                "--sequence-length", "64", "-o", path(output)});
  };
  const Outcome few = samples("8", "few"), many = samples("500", "many");
  expect_success(few);
  EXPECT_EQ(many.status, 0);
  EXPECT_THAT(many.error,
              AllOf(HasSubstr("qeval: warning: "), HasSubstr("calibration.txt: 500 samples of 64 tokens"),
                    HasSubstr("side by side")));
  EXPECT_THAT(json("many/quantize.json").at("warnings").at(0).at("what").get<std::string>(),
              HasSubstr("500 samples of 64 tokens"));
  EXPECT_THAT(json("few/quantize.json").at("warnings").dump(), Not(HasSubstr("side by side")));
}

// It was found when the checkpoint was written, after all the work, and left a folder that only said
// "unfinished".
TEST_F(QuantizeCli, ACompanionFileThatCannotBeReadIsFoundBeforeTheWork) {
  write("model/merges.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  expect_one_line(quantize("out", {}), kFailed, "merges.txt: a Git LFS pointer");
  EXPECT_FALSE(std::filesystem::exists(path("out")));
}

TEST_F(QuantizeCli, InspectListsPointsWithErrorsAndSensitivities) {
  expect_success(quantize("checkpoint", {"--keep-16bit", "mlp.w2.input"}));
  const std::string calibration = path("calibration.txt");
  const Outcome summary = run({"inspect", "-m", path("checkpoint")});
  expect_success(summary);
  EXPECT_THAT(summary.output, AllOf(HasSubstr("8-bit asymmetric"), Not(HasSubstr("mlp.w2.input"))));
  const Outcome points = run({"inspect", "-m", path("checkpoint"), "--points"});
  expect_success(points);
  EXPECT_THAT(points.output, AllOf(HasSubstr("model.layers.0.mlp.w2.input"),
                                   HasSubstr("model.layers.1.self_attn.q_proj.weight"), HasSubstr("16-bit")));
  const Outcome errors = run({"inspect", "-m", path("checkpoint"), "--errors", "--points", "mlp.*",
                              "--calibration", calibration, "--samples", "2", "--sequence-length", "16"});
  expect_success(errors);
  EXPECT_THAT(errors.output,
              AllOf(HasSubstr("SNR (dB)"), HasSubstr("mlp.w2.weight"), Not(HasSubstr("q_proj"))));
  const Outcome sensitivity =
      run({"inspect", "-m", path("checkpoint"), "--sensitivity", "--points", "mlp.w1.weight", "--calibration",
           calibration, "--samples", "2", "--sequence-length", "16"});
  expect_success(sensitivity);
  EXPECT_THAT(sensitivity.output,
              AllOf(HasSubstr("nats per token"), HasSubstr("model.layers.0.mlp.w1.weight"),
                    HasSubstr("model.layers.1.mlp.w1.weight")));
  const auto compare = [&](const std::string& what) {
    return run({"inspect", "-m", path("checkpoint"), "--compare", what, "--points", "mlp.*", "--calibration",
                calibration, "--samples", "2", "--sequence-length", "16"});
  };
  const Outcome compared = compare("fake,integer");
  expect_success(compared);
  EXPECT_THAT(compared.output, AllOf(HasSubstr("largest"), HasSubstr("model.layers.1.mlp.w2.output"),
                                     Not(HasSubstr("q_proj"))));
  expect_one_line(compare("fake,float"), kWrongUsage, "accepted: fake, integer");
  expect_one_line(run({"inspect", "-m", path("checkpoint"), "--compare", "fake,integer"}), kWrongUsage,
                  "--calibration");
  expect_one_line(run({"inspect", "-m", path("checkpoint"), "--errors"}), kWrongUsage, "--calibration");
  expect_one_line(run({"inspect", "-m", path("checkpoint"), "--calibration", calibration}), kWrongUsage,
                  "--errors");
  expect_one_line(run({"inspect", "-m", path("checkpoint"), "--points", "mlp.w9"}), kFailed, "mlp.w9");
  expect_one_line(run({"inspect", "-m", path("model"), "--points"}), kFailed, "default_qcfg.json");
}

TEST_F(QuantizeCli, CalibrationOnAnEvaluatedTextIsWarnedOf) {
  std::string page = " = A page = \n";
  page += read("calibration.txt");
  write("data/wikitext2/wiki.test.raw", page);
  expect_success(quantize("checkpoint", {}));
  const std::vector<std::string> eval{"eval",       "-m", path("checkpoint"), "-d",
                                      path("data"), "-o", path("out")};
  auto with_task = [&](const std::string& task) {
    std::vector<std::string> arguments = eval;
    arguments.back() += task;
    arguments.insert(arguments.end(), {"-t", task});
    return run(arguments);
  };
  const Outcome overlapping = with_task("wikitext");
  EXPECT_EQ(overlapping.status, 0);
  EXPECT_THAT(overlapping.error, AllOf(HasSubstr("warning"), HasSubstr("wikitext"), HasSubstr("calibrated")));
  EXPECT_GT(json("outwikitext/results.json")["configs"]["wikitext"]["calibration_overlap"], 0.1);
  expect_success(with_task("piqa"));
  EXPECT_EQ(json("outpiqa/results.json")["configs"]["piqa"]["calibration_overlap"], 0.0);
}

/// The comparison of several arithmetics replaces results.json: never that of another run.
/// A task of one continuation has gold in its samples, too.
TEST_F(QuantizeCli, ResultsOfALastWordTaskFollowFromTheirSamples) {
  write("data/lambada_openai/test.jsonl", "{\"text\": \"the cat sat on the mat\"}\n");
  expect_success(
      run({"eval", "-m", path("model"), "-d", path("data"), "-t", "lambada_openai", "-o", path("out")}));
  expect_success(run({"report", path("out"), "--recompute"}));
}

TEST_F(QuantizeCli, WhatDoesNotGoTogetherIsNamed) {
  expect_one_line(quantize("x", {"--alpha", "0.5"}), kWrongUsage, "--alpha");
  expect_one_line(quantize("x", {"--method", "smoothquant", "--epochs", "2"}), kWrongUsage, "--epochs");
  expect_one_line(quantize("x", {"--scheme", "w8a9"}), kWrongUsage, "w8a9");
  expect_one_line(quantize("x", {"--weight-group-size", "7"}), kFailed, "group");
  EXPECT_FALSE(std::filesystem::exists(path("x"))) << "a scheme that the model cannot have leaves no folder";
  expect_one_line(quantize("x", {"--weight-bits", "99"}), kWrongUsage, "--weight-bits");
  expect_one_line(quantize("x", {"--keep-16bit", "mlp.w9.input"}), kFailed, "mlp.w9.input");
  expect_one_line(run({"quantize", "-m", path("model"), "-o", path("x")}), kWrongUsage, "--calibration");
  expect_one_line(quantize("model", {}), kFailed, path("model"));
  EXPECT_FALSE(std::filesystem::exists(path("x/quantize.json")));
}

TEST_F(QuantizeCli, FilesThatDoNotFitAreRefusedByTheModulesName) {
  expect_success(quantize("checkpoint", {}));
  const nlohmann::json ranges = json("checkpoint/act_dict.json"), qcfg = json("checkpoint/default_qcfg.json");
  const std::string module = "model.layers.1.mlp.w2";
  const auto expect_refusal = [&](const nlohmann::json& act, const nlohmann::json& config,
                                  const std::string& part) {
    write("act.json", act.dump());
    write("qcfg.json", config.dump());
    expect_one_line(run({"eval", "-m", path("checkpoint"), "-t", "sample", "--act-ranges", path("act.json"),
                         "--qcfg", path("qcfg.json")}),
                    kFailed, part);
  };
  nlohmann::json act = ranges;
  act[module]["input"] = {2.0, 1.0};
  expect_refusal(act, qcfg, module);
  act[module]["input"] = {nullptr, 1.0};
  expect_refusal(act, qcfg, module);
  act[module].erase("input");
  expect_refusal(act, qcfg, module);
  act = ranges;
  act["model.layers.7.mlp.w2"] = act[module];  // of a model with more layers
  expect_refusal(act, qcfg, "model.layers.7.mlp.w2");
  for (const int bits : {0, 99}) {
    nlohmann::json config = qcfg;
    config[module]["weight"]["bitwidth"] = bits;
    expect_refusal(ranges, config, module);
  }
}

/// Every preset drew 32 samples, so that the recommended run was not the one that had been measured.
TEST_F(QuantizeCli, APresetDecidesHowManySamplesAreDrawn) {
  const auto samples = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"quantize",
                                       "-m",
                                       path("model"),
                                       "--method",
                                       "mobilequant",
                                       "--epochs",
                                       "1",
                                       "--sequence-length",
                                       "4",
                                       "--calibration",
                                       path("calibration.txt"),
                                       "-o",
                                       path("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    expect_success(run(arguments));
    return json("out/quantize.json")["calibration"]["samples"].get<int>();
  };
  EXPECT_EQ(samples({}), 32);
  EXPECT_EQ(samples({"--preset", "distill"}), 80);
  EXPECT_EQ(samples({"--preset", "near-lossless"}), 256);
  EXPECT_EQ(samples({"--preset", "paper"}), 1024);
  EXPECT_EQ(samples({"--preset", "paper", "--samples", "3"}), 3);
}

/// The loss of --loss was ignored, and a folder was asked for that nothing was written to.
TEST_F(QuantizeCli, GradientsAreOfTheLossThatIsAskedFor) {
  const auto gradients = [&](const std::string& file, const std::string& loss) {
    expect_success(run({"quantize", "-m", path("model"), "--method", "mobilequant", "--loss", loss,
                        "--calibration", path("calibration.txt"), "--samples", "1", "--sequence-length", "16",
                        "--gradients-only", path(file)}));
    return read(file);
  };
  EXPECT_NE(gradients("logits", "logits"), gradients("output", "output"));
  expect_one_line(quantize("out", {"--method", "mobilequant", "--resume", "--gradients-only", path("g")}),
                  kWrongUsage, "--resume: not used with --gradients-only");
  expect_one_line(run({"quantize", "-m", path("model"), "--calibration", path("calibration.txt")}),
                  kWrongUsage, "--output");
}

/// A folder used again kept the log of what had been learned in it: results showed it as the new
/// checkpoint's.
TEST_F(QuantizeCli, AFolderUsedAgainHoldsTheNewCheckpointOnly) {
  expect_success(quantize("again", {"--method", "omniquant", "--epochs", "1"}));
  expect_success(quantize("again", {}));
  expect_success(quantize("fresh", {}));
  const auto names = [&](const std::string& folder) {
    std::set<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(path(folder)))
      all.insert(entry.path().filename().string());
    return all;
  };
  EXPECT_EQ(names("again"), names("fresh"));
  scores("again", "out");
  EXPECT_FALSE(json("out/results.json")["model"]["details"].contains("training_loss"));
}

/// Interrupted before the first step, a run promised to go on with --resume, which then had nothing to read.
TEST_F(QuantizeCli, AResumeIsPromisedOnceThereIsAStateToResume) {
  const auto interrupted = [&](const std::string& folder, const std::string& samples,
                               const std::string& file) {
    const Running running =
        start_program(path(""), {QEVAL_BINARY, "quantize", "-m", path("model"), "--method", "mobilequant",
                                 "--epochs", "1000", "--calibration", path("calibration.txt"), "--samples",
                                 samples, "--sequence-length", "32", "-o", path(folder)});
    const std::filesystem::path awaited = std::filesystem::path(path(folder)) / file;
    siginfo_t ended{};
    for (std::error_code code; std::filesystem::file_size(awaited, code) == 0 || code;) {
      ::waitid(P_PID, static_cast<id_t>(running.process), &ended, WEXITED | WNOHANG | WNOWAIT);
      if (ended.si_pid != 0) break;
      std::this_thread::yield();
    }
    ::kill(running.process, SIGINT);
    return wait_for(running);
  };
  const Outcome calibrating = interrupted("calibrating", "100000", "quantize.unfinished");
  EXPECT_EQ(calibrating.status, kFailed);
  EXPECT_THAT(calibrating.error, HasSubstr("side by side"));  // so many samples are worth a warning
  EXPECT_THAT(calibrating.error, HasSubstr("\nqeval: interrupted\n"));
  EXPECT_THAT(calibrating.error, Not(HasSubstr("--resume")));
  expect_one_line(interrupted("learning", "2", "training.jsonl"), kFailed,
                  "interrupted; the same command with --resume continues the learning");
  EXPECT_TRUE(std::filesystem::exists(path("learning/training_state.bin")));
}

TEST_F(QuantizeCli, LearningGivesTheSameBytesAgainAndResumesNothingThatIsNotThere) {
  const std::vector<std::string> learning{"--method", "mobilequant", "--epochs", "2", "--let-lr", "1e-3"};
  expect_success(quantize("whole", learning));
  std::vector<std::string> resume = learning;
  resume.emplace_back("--resume");
  expect_one_line(
      quantize("nothing", resume), kFailed,
      "has no training_state.bin: no learning run was interrupted here, or before its first step; "
      "accepted: the same command without --resume");
  EXPECT_FALSE(std::filesystem::exists(path("nothing")));
  const std::string log = read("whole/training.jsonl");
  EXPECT_EQ(std::ranges::count(log, '\n'), 8);
  expect_success(quantize("again", learning));
  EXPECT_EQ(read("again/model.safetensors"), read("whole/model.safetensors"));
  EXPECT_EQ(read("again/act_dict.json"), read("whole/act_dict.json"));
}

}  // namespace
}  // namespace qeval::test
