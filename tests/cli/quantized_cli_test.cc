// Folders that others have quantized, from the command line.
#include <cmath>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli_fixture.h"
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
    expect_success(outcome);
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
