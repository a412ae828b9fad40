// The same command leaves the same bytes, whatever the threads and the batches; what CPU paths may change is
// bounded.
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"
#include "model/kernels/cpu.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// What cannot be the same in two runs, by its name in results.json; of the environment the threads.
constexpr const char* kOfTheRun[] = {"seconds", "date", "peak_rss_bytes", "command"};

class ReproducibilityCli : public Cli {
 protected:
  ReproducibilityCli() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += fmt::format("Line {} of what the model is calibrated on.\n", i);
    write("calibration.txt", text);
  }
  ordered_json results(const std::string& folder) const {
    ordered_json json = ordered_json::parse(read(folder + "/results.json"));
    for (const char* key : kOfTheRun) EXPECT_EQ(json.erase(key), 1U) << key;
    json["environment"].erase("threads");
    return json;
  }
  void expect_same_bytes(const std::string& one, const std::string& other) const {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(path(one))) {
      const std::string name = entry.path().filename();
      ++files;
      // What a run was asked for names its folder and threads.
      if (name == "results.json" || name == "run.json") continue;
      EXPECT_EQ(read(one + "/" + name), read(other + "/" + name)) << name;
    }
    EXPECT_GE(files, 3);
    EXPECT_EQ(std::distance(fs::directory_iterator(path(other)), fs::directory_iterator()), files);
    EXPECT_EQ(results(one), results(other));
  }
};

TEST_F(ReproducibilityCli, EveryArithmeticLeavesTheSameBytesForAnyThreadsAndBatches) {
  expect_success(
      run({"quantize", "-m", path("model"), "--method", "rtn", "--calibration", path("calibration.txt"),
           "--samples", "4", "--sequence-length", "24", "-o", path("q")}));
  for (const std::string arithmetic : {"float", "fake", "integer"}) {
    SCOPED_TRACE(arithmetic);
    const auto evaluate = [&](const std::string& out, const std::string& threads, const std::string& batch) {
      expect_success(run({"eval", "-m", path("q"), "-d", path("data"), "-t", "piqa,sample", "-o", path(out),
                          "--arithmetic", arithmetic, "--threads", threads, "--batch-tokens", batch}));
    };
    evaluate(arithmetic + "-a", "1", "256");
    evaluate(arithmetic + "-b", "1", "256");
    evaluate(arithmetic + "-c", "2", "4096");
    evaluate(arithmetic + "-d", "3", "7");
    for (const char* other : {"-b", "-c", "-d"}) expect_same_bytes(arithmetic + "-a", arithmetic + other);
  }
}

TEST_F(ReproducibilityCli, ACheckpointHasTheSameBytesForAnyThreads) {
  const auto quantize = [&](const std::string& out, const std::string& threads) {
    expect_success(run({"quantize", "-m", path("model"), "--method", "smoothquant", "--calibration",
                        path("calibration.txt"), "--samples", "4", "--sequence-length", "24", "--threads",
                        threads, "-o", path(out)}));
  };
  quantize("one", "1");
  quantize("three", "3");
  for (const char* file : {"act_dict.json", "default_qcfg.json", "model.safetensors"}) {
    EXPECT_EQ(read(std::string("one/") + file), read(std::string("three/") + file)) << file;
  }
}

TEST_F(ReproducibilityCli, FloatScoresOfTheCpuPathsAgreeToATenthOfAThousandth) {
  std::string requests;
  for (int i = 0; i < 8; ++i) {
    requests += fmt::format(
        "{{\"id\": {}, \"context\": \"Question {} of\", \"continuation\": \" many more\"}}\n", i, i);
  }
  const auto score = [&](const std::string& cpu) {
    setenv("QEVAL_CPU", cpu.c_str(), 1);
    const Outcome outcome = run({"score", "-m", path("model")}, requests);
    unsetenv("QEVAL_CPU");
    expect_success(outcome);
    std::vector<double> scores;
    for (size_t at = 0; at < outcome.output.size(); at = outcome.output.find('\n', at) + 1) {
      const std::string line = outcome.output.substr(at, outcome.output.find('\n', at) - at);
      scores.push_back(nlohmann::json::parse(line)["logprob"].get<double>());
    }
    return scores;
  };
  const std::vector<double> portable = score("portable");
  ASSERT_EQ(portable.size(), 8U);
  for (const model::CpuPath cpu : {model::CpuPath::avx2, model::CpuPath::avx512, model::CpuPath::neon}) {
    if (!model::cpu_supports(cpu)) continue;
    const std::vector<double> scores = score(std::string(model::name(cpu)));
    ASSERT_EQ(scores.size(), portable.size());
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], portable[i], 1e-4) << i;
  }
}

/// Integers do not depend on the CPU's instructions, nor on batches and threads; the hash shows it.
TEST_F(ReproducibilityCli, IntegerLogitsHaveOneHashOnEveryCpuPath) {
  expect_success(
      run({"quantize", "-m", path("model"), "--method", "rtn", "--calibration", path("calibration.txt"),
           "--samples", "4", "--sequence-length", "24", "-o", path("q")}));
  const auto hash = [&](const std::string& cpu, const std::string& arithmetic, const std::string& batch) {
    const std::string out = "out-" + cpu + arithmetic + batch;
    setenv("QEVAL_CPU", cpu.c_str(), 1);
    const Outcome outcome = run({"eval", "-m", path("q"), "-d", path("data"), "-t", "piqa", "-o", path(out),
                                 "--arithmetic", arithmetic, "--batch-tokens", batch});
    unsetenv("QEVAL_CPU");
    expect_success(outcome);
    return results(out)["tasks"]["piqa"]["logits_hash"].get<std::string>();
  };
  const std::string portable = hash("portable", "integer", "512");
  EXPECT_EQ(portable.size(), 16U);
  EXPECT_EQ(hash("portable", "integer", "7"), portable);
  for (const model::CpuPath path : {model::CpuPath::avx2, model::CpuPath::avx512, model::CpuPath::neon}) {
    if (!model::cpu_supports(path)) continue;
    EXPECT_EQ(hash(std::string(model::name(path)), "integer", "512"), portable);
  }
  EXPECT_EQ(hash("", "integer", "512"), portable);  // with the dot products and tiles of this CPU
  EXPECT_NE(hash("portable", "fake", "512"), portable);
}

}  // namespace
}  // namespace qeval::test
