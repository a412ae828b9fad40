// Folders that others have quantized, from the command line.
#include <cmath>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli_fixture.h"
#include "tests/model/fixtures.h"
#include "tests/reference_data.h"

namespace qeval::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class QuantizedCli : public Cli {
 protected:
  static std::string golden(const std::string& name) { return goldens() / "quantized" / name; }
  /// Log-probabilities of a golden's first sequence.
  std::vector<double> scores(const std::string& model, const std::vector<std::string>& more) const {
    const json expected = json::parse(read_file(goldens() / "quantized" / kInt8 / "expected.json"));
    const json& ids = expected["input_ids"][0];
    json request = {{"id", 0}, {"context_ids", {ids[0]}}, {"continuation_ids", ids}};
    request["continuation_ids"].erase(0);
    std::vector<std::string> arguments{"score", "-m", model};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments, request.dump() + "\n");
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    return json::parse(outcome.output)["token_logprobs"].get<std::vector<double>>();
  }
  static constexpr const char* kInt8 = "ct-w8a8-int-static";
};

double mean_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

TEST_F(QuantizedCli, ActivationsAreRoundedUnlessFloatIsAsked) {
  const std::vector<double> own = scores(golden(kInt8), {});
  EXPECT_EQ(scores(golden(kInt8), {"--arithmetic", "fake"}), own);
  const std::vector<double> weights_only = scores(golden(kInt8), {"--arithmetic", "float"});
  EXPECT_GT(mean_difference(own, weights_only), 1e-3);
  // What is expanded has the same weights, and says what it lost.
  const Outcome converted = run({"convert", "-m", golden(kInt8), "-o", path("expanded")});
  expect_success(converted);
  EXPECT_THAT(converted.output,
              HasSubstr("Expanded compressed-tensors (compressed-tensors int8 per channel)"));
  EXPECT_THAT(converted.output, HasSubstr("nor how it rounds activations"));
  EXPECT_LT(mean_difference(scores(path("expanded"), {}), weights_only), 1e-6);
}

TEST_F(QuantizedCli, IntegersAddUpTheCodesThatTheSimulationRounds) {
  for (const char* name : {kInt8, "ct-w8a8-int-dynamic"}) {
    const std::vector<double> fake = scores(golden(name), {});
    const std::vector<double> integer = scores(golden(name), {"--arithmetic", "integer"});
    EXPECT_LT(mean_difference(integer, fake), 1e-4) << name;
    EXPECT_NE(integer, fake) << name;  // other sums
    EXPECT_EQ(scores(golden(name), {"--arithmetic", "integer", "--batch-tokens", "48", "--threads", "1"}),
              integer)
        << name;
  }
}

/// Sums of codes are exact in a block, and of blocks in one order.
TEST_F(QuantizedCli, GgmlProductsOfCodesDoNotDependOnTheBatch) {
  for (const char* name : {"iq4-nl", "mxfp4", "nvfp4", "tq1-0", "iq1-m", "iq2-xs", "iq3-s"}) {
    const std::string model = golden("gguf-" + std::string(name) + "/model.gguf");
    const std::vector<double> own = scores(model, {"--arithmetic", "ggml"});
    EXPECT_NE(scores(model, {"--arithmetic", "float"}), own);
    EXPECT_LT(mean_difference(scores(model, {"--arithmetic", "float"}), own), 0.25) << name;
    EXPECT_EQ(scores(model, {"--arithmetic", "ggml", "--batch-tokens", "5", "--threads", "1"}), own) << name;
  }
}

TEST_F(QuantizedCli, InspectTakesALossApart) {
  const std::string model = golden("gguf-iq4-nl/model.gguf");
  write("ids.json", "[1, 17, 99, 4, 56]\n[1, 5, 9]\n");
  const std::vector<std::string> losses{"inspect", "-m", model, "--losses", "--base", model};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), losses.begin(), losses.end());
    return run(more);
  };
  const Outcome outcome = with({"--calibration-ids", path("ids.json")});
  expect_success(outcome);
  EXPECT_THAT(outcome.output, HasSubstr("nats per token, 6 tokens\nweights                       +0.000000"));
  EXPECT_THAT(outcome.output,
              HasSubstr("\nlayer alone                     weights  activations keys, values\n"
                        "layer 0                       +0.000000"));
  EXPECT_THAT(outcome.output, HasSubstr("\nself_attn.q_proj"));
  expect_one_line(with({}), kWrongUsage, "--losses: needs --calibration or --calibration-ids");
  expect_one_line(run({"inspect", "-m", model, "--losses"}), kWrongUsage, "--losses: needs --base");
  expect_one_line(run({"inspect", "-m", model, "--base", model}), kWrongUsage,
                  "--base: not used without --losses");
  expect_one_line(run({"inspect", "-m", model, "--losses", "--base", golden(kInt8), "--calibration-ids",
                       path("ids.json")}),
                  kFailed, "losses are of one model in two types");
  expect_one_line(with({"--calibration-ids", path("ids.json"), "--points", "*"}), kWrongUsage,
                  "--points: not used with --losses");
  write("short.json", "[1]\n[2, 3]\n");
  expect_one_line(with({"--calibration-ids", path("short.json")}), kFailed,
                  "a sample of 1 token has none to predict");
  expect_one_line(run({"inspect", "-m", golden(kInt8), "--losses", "--base", model, "--calibration-ids",
                       path("ids.json")}),
                  kWrongUsage, "is a folder; a GGUF file is expected");
}

/// Of weights in floats nothing but keys and values is rounded.
TEST_F(QuantizedCli, GgmlRoundsAsTheFilesTypesSay) {
  write("tiny.gguf", model::fixtures::gguf(model::fixtures::tiny_gguf()));
  const std::string request = R"({"id": 0, "context_ids": [1], "continuation_ids": [2, 3, 1, 0, 4, 2, 3]})";
  const auto score = [&](std::vector<std::string> more, const std::string& model = "tiny.gguf") {
    more.insert(more.begin(), {"score", "-m", model == "tiny.gguf" ? path(model) : model});
    return run(more, request + "\n");
  };
  const auto values = [&](const Outcome& outcome) {
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    return json::parse(outcome.output)["token_logprobs"].get<std::vector<double>>();
  };
  const std::vector<double> floats = values(score({"--arithmetic", "float"}));
  EXPECT_EQ(values(score({"--arithmetic", "ggml", "--kv-type", "f32"})), floats);
  const std::vector<double> halves = values(score({"--arithmetic", "ggml"}));
  EXPECT_NE(halves, floats);
  EXPECT_LT(mean_difference(halves, floats), 1e-2);
  EXPECT_EQ(values(score({"--arithmetic", "ggml", "--kv-type", "f16", "--threads", "1"})), halves);
  EXPECT_EQ(values(score({"--arithmetic", "ggml-f32"})), floats);
  expect_one_line(score({"--arithmetic", "float", "--kv-type", "q8_0"}), kWrongUsage,
                  "--kv-type: q8_0: used by --arithmetic ggml only");
  expect_one_line(score({"--arithmetic", "ggml", "--kv-type", "q9"}), kWrongUsage, "q9");
  expect_one_line(score({"--arithmetic", "ggml", "--kv-type", "q8_0"}), kFailed, "multiples of 32");
  expect_one_line(score({"--arithmetic", "ggml"}, golden(kInt8)), kFailed,
                  "is a folder; accepted: a GGUF file");
}

/// Tiny models with a tokenizer for ASCII, compared from calibration to report.
class ComparedCli : public QuantizedCli {
 protected:
  ComparedCli() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "Line " + std::to_string(i * 37 % 101) + " of a calibration text.\n";
    write("calibration.txt", text);
    json tokenizer = json::parse(byte_tokenizer());
    json& vocabulary = tokenizer["model"]["vocab"];
    for (auto entry = vocabulary.begin(); entry != vocabulary.end();) {
      const bool kept = entry->get<int>() < kEnd || entry.key() == "<end>";
      entry = kept ? std::next(entry) : vocabulary.erase(entry);
    }
    if (vocabulary.contains("<end>")) vocabulary["<end>"] = kEnd;
    tokenizer["added_tokens"][0]["id"] = kEnd;
    tokenizer_ = tokenizer.dump();
  }

  /// A copy of a golden's folder.
  std::string model(const std::string& golden) const {
    const std::string folder = path("golden");
    std::filesystem::copy(goldens() / golden, folder, std::filesystem::copy_options::recursive);
    write("golden/tokenizer.json", tokenizer_);
    write("golden/tokenizer_config.json", R"({"eos_token": "<end>"})");
    return folder;
  }
  Outcome compare(const std::string& model, const std::string& methods, const std::string& schemes) const {
    return run({"compare",
                "-m",
                model,
                "-d",
                path("data"),
                "-t",
                "piqa",
                "--samples",
                "4",
                "--sequence-length",
                "48",
                "--calibration",
                path("calibration.txt"),
                "--methods",
                methods,
                "--schemes",
                schemes,
                "--integer",
                "all",
                "-o",
                path("out")});
  }
  /// Runs of the comparison by name.
  std::vector<std::string> rows() const {
    std::vector<std::string> names;
    const json compared = json::parse(read("out/compare.json"));
    for (const json& entry : compared["entries"]) names.push_back(entry["name"].get<std::string>());
    return names;
  }

  static constexpr int kEnd = 127;
  std::string tokenizer_;
};

TEST_F(ComparedCli, AMobileGemmaRunsInIntegersFromEmbeddingToLogits) {
  for (const char* golden : {"quantized/gemma-quant-gemma4", "quantized/gemma-quant-gemma3"}) {
    const std::string source = model(golden);
    const Outcome compared = compare(source, "rtn", "stored");
    EXPECT_EQ(compared.status, 0) << compared.error;
    EXPECT_THAT(compared.error,
                HasSubstr("its weights alone count, but under the scheme stored"));  // the base
    EXPECT_THAT(rows(), testing::ElementsAre("fp", "rtn stored", "rtn stored integer"));
    EXPECT_THAT(read("out/report.md"),
                testing::AllOf(HasSubstr("RTN stored"), HasSubstr("RTN stored, integer")));
    const std::string made = path("out/checkpoints/rtn-stored");
    // Of modules_to_not_convert; Gemma 4's is no map of a block.
    const json record = json::parse(read_file(std::filesystem::path(made) / "quantize.json"));
    const bool some = std::string(golden).ends_with("gemma3");
    EXPECT_EQ(record["warnings"].dump().find("stores no codes") != std::string::npos, some);
    const std::vector<double> fake = scores(made, {"--arithmetic", "fake"});
    const std::vector<double> integer = scores(made, {"--arithmetic", "integer"});
    EXPECT_LT(mean_difference(integer, fake), 0.15) << golden;
    EXPECT_NE(integer, fake);
    EXPECT_EQ(scores(made, {"--arithmetic", "integer", "--batch-tokens", "7", "--threads", "1"}), integer);
    // What the checkpoint says of itself is still there, in its own library's form.
    EXPECT_LT(mean_difference(fake, scores(source, {})), 0.5) << golden;
    std::filesystem::remove_all(path("golden"));
    std::filesystem::remove_all(path("out"));
  }
}

TEST_F(ComparedCli, AMixtureOfExpertsIsSmoothedAndRunsInIntegers) {
  const std::string source = model("architectures/qwen2_moe");
  expect_success(compare(source, "rtn,smoothquant", "w8a8"));
  EXPECT_THAT(rows(), testing::ElementsAre("fp", "rtn w8a8", "rtn w8a8 integer", "smoothquant w8a8",
                                           "smoothquant w8a8 integer"));
  EXPECT_THAT(read("out/report.md"), HasSubstr("w8a8, integer"));
  const std::string made = path("out/checkpoints/smoothquant-w8a8");
  const std::vector<double> fake = scores(made, {"--arithmetic", "fake"});
  EXPECT_LT(mean_difference(scores(made, {"--arithmetic", "integer"}), fake), 0.1);
  EXPECT_LT(mean_difference(fake, scores(source, {})), 0.5);
}

/// The defaults name methods that know dense blocks alone, and schemes of activations.
TEST_F(ComparedCli, DefaultsThatAModelLacksAreLeftOutAndSaid) {
  const auto compare = [&](std::vector<std::string> more) {
    std::vector<std::string> all{"compare",
                                 "-m",
                                 path("golden"),
                                 "-d",
                                 path("data"),
                                 "-t",
                                 "piqa",
                                 "--samples",
                                 "2",
                                 "--sequence-length",
                                 "24",
                                 "--calibration",
                                 path("calibration.txt"),
                                 "-o",
                                 path("out")};
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  };
  model("architectures/lfm2");
  const Outcome hybrid = compare({});
  EXPECT_EQ(hybrid.status, 0) << hybrid.error;
  EXPECT_THAT(hybrid.error,
              testing::AllOf(HasSubstr("schemes of weights alone (w8a16-sym, w4a16-sym): lfm2 model"),
                             HasSubstr("method mobilequant left out: lfm2 model: learning has no"),
                             HasSubstr("method rotate left out")));
  EXPECT_THAT(rows(), testing::ElementsAre("fp", "rtn w8a16-sym", "smoothquant w8a16-sym", "rtn w4a16-sym",
                                           "smoothquant w4a16-sym"));
  std::filesystem::remove_all(path("out"));
  expect_one_line(compare({"--methods", "mobilequant"}), kFailed, "learning has no");
  expect_one_line(compare({"--schemes", "w8a8"}), kFailed, "fake-quantized arithmetic has no convolution");
  EXPECT_FALSE(std::filesystem::exists(path("out")));
}

TEST_F(ComparedCli, StoredIsOfWhatIsStored) {
  const auto quantize = [&](const std::string& model, std::vector<std::string> more) {
    std::vector<std::string> all{"quantize",
                                 "-m",
                                 model,
                                 "--scheme",
                                 "stored",
                                 "--calibration",
                                 path("calibration.txt"),
                                 "--samples",
                                 "2",
                                 "--sequence-length",
                                 "24",
                                 "-o",
                                 path("x")};
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  };
  expect_one_line(quantize(path("model"), {}), kFailed, "stores neither codes nor ranges");
  const std::string gemma = model("quantized/gemma-quant-gemma3");
  expect_one_line(quantize(gemma, {"--method", "smoothquant"}), kFailed,
                  "method smoothquant changes weights");
  expect_one_line(quantize(gemma, {"--rounding", "gptq"}), kFailed, "make new codes");
  expect_one_line(quantize(gemma, {"--weight-bits", "4"}), kWrongUsage, "--weight-bits");
}

TEST_F(QuantizedCli, WhatCannotBeComputedIsRefused) {
  const std::string request = R"({"id": 0, "context_ids": [1], "continuation_ids": [2]})";
  expect_one_line(run({"score", "-m", golden("ct-mixed"), "--arithmetic", "integer"}, request), kFailed,
                  "no linear map multiplies integers of at most 8 bits by such");
  expect_one_line(run({"score", "-m", golden(kInt8), "--gptq-zeros", "v2"}, request), kFailed,
                  "--gptq-zeros v2: not used by quant_method compressed-tensors");
  expect_one_line(run({"score", "-m", path("model"), "--gptq-zeros", "v2"}, request), kFailed,
                  "has no quantization_config");
  expect_one_line(run({"score", "-m", golden("gptq-w3-g32-asym"), "--gptq-zeros", "v3"}, request),
                  kWrongUsage, "v1, v2");
}

TEST_F(QuantizedCli, InspectNamesFormatsByClass) {
  const Outcome outcome = run({"inspect", "-m", golden("ct-mixed")});
  EXPECT_EQ(outcome.status, 0);
  for (const char* part : {"quantization           compressed-tensors", "feed-forward weights",
                           "attention weights", "compressed-tensors FP8 per channel, 8.12 bits a weight",
                           "compressed-tensors int4 g32, 4.", "1 in BF16, 16.00", "inputs FP8 per token"}) {
    EXPECT_THAT(outcome.output, HasSubstr(part));
  }
}

}  // namespace
}  // namespace qeval::test
