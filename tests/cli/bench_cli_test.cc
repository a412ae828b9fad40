#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/energy.h"
#include "cli_fixture.h"

namespace qeval::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class BenchCli : public Cli {
 protected:
  Outcome bench(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"bench",      "-m",         path("model"),   "--prompt", "8",
                                       "--contexts", "12,20",      "--generate",    "3",        "--repeat",
                                       "2",          "--powercap", path("powercap")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  void counter(const std::string& zone, const std::string& name, const std::string& energy) const {
    std::filesystem::create_directories(path("powercap/" + zone));
    write("powercap/" + zone + "/name", name + "\n");
    write("powercap/" + zone + "/max_energy_range_uj", "1000000\n");
    write("powercap/" + zone + "/energy_uj", energy + "\n");
  }
};

TEST_F(BenchCli, MeasuresEverySchemeAndNamesTheMachine) {
  const Outcome outcome = bench({"-o", path("bench.json")});
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("fp"), HasSubstr("w8a16"), HasSubstr("w8a8"), HasSubstr("w4a8"),
                                    HasSubstr("ms/token at 12"), HasSubstr("ms/token at 20")));
  EXPECT_THAT(outcome.output, HasSubstr("Another machine"));
  EXPECT_THAT(outcome.output, HasSubstr("Energy: not measured"));
  const auto json = nlohmann::json::parse(read("bench.json"));
  ASSERT_EQ(json["rows"].size(), 4U);
  EXPECT_EQ(json["rows"][0]["arithmetic"], "float");
  for (const auto& row : json["rows"]) {
    EXPECT_EQ(row["prompt"]["count"], 2);
    EXPECT_EQ(row["generation"][1]["context"], 20);
    EXPECT_EQ(row["generation"][1]["token"]["count"], 3);
    EXPECT_GT(row["generation"][0]["token"]["median_ms"].get<double>(), 0);
    EXPECT_GE(row["prompt"]["max_ms"].get<double>(), row["prompt"]["min_ms"].get<double>());
    EXPECT_GT(row["memory_bytes"].get<int64_t>(), 0);
    EXPECT_TRUE(row["prompt_joules"].is_null());
  }
  // Codes of keys and values take a quarter of their floats, but for the keys' sums.
  EXPECT_LT(json["rows"][2]["kv_bytes"].get<double>(), 0.6 * json["rows"][0]["kv_bytes"].get<double>());
}

TEST_F(BenchCli, EnergyIsReadWhereTheMachineCountsIt) {
  counter("intel-rapl:0", "package-0", "5000");
  const Outcome outcome = bench({"--schemes", "fp"});
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("prompt, J"), HasSubstr("0.00"), Not(HasSubstr("not measured"))));
}

TEST_F(BenchCli, WhatCannotBeMeasuredIsNamed) {
  expect_one_line(bench({"--schemes", "w2a2"}), kWrongUsage, "w2a2");
  expect_one_line(bench({"--schemes", "own"}), kWrongUsage, "no quantized checkpoint");
  expect_one_line(bench({"--schemes", "w4a16"}), kWrongUsage, "--arithmetic fake");
  expect_one_line(run({"bench", "-m", path("model"), "--contexts", "9999999"}), kWrongUsage, "--contexts");
  expect_one_line(run({"bench", "-m", path("model"), "--contexts", "4,x"}), kWrongUsage, "--contexts");
  expect_one_line(run({"bench", "-m", path("model"), "--prompt", "4", "--contexts", "4", "--generate", "4"}),
                  kWrongUsage, "--generate");
  expect_one_line(run({"bench", "-m", path("model"), "--repeat", "0"}), kWrongUsage, "--repeat");
  expect_one_line(run({"bench", "-m", path("nothing")}), kFailed, "nothing");
}

TEST_F(BenchCli, CountersAddUpOverPackagesAndBeginAnew) {
  counter("intel-rapl:0", "package-0", "900000");
  counter("intel-rapl:0:0", "core", "1");
  counter("intel-rapl:1", "package-1", "100");
  const cli::EnergyCounters counters(path("powercap"));
  ASSERT_TRUE(counters.available());
  const auto before = counters.now();
  counter("intel-rapl:0", "package-0", "100000");  // through the end of its range
  counter("intel-rapl:1", "package-1", "300100");
  const auto after = counters.now();
  EXPECT_DOUBLE_EQ(counters.joules(before, after).value(), 0.2 + 0.3);
  std::filesystem::remove(path("powercap/intel-rapl:1/energy_uj"));
  EXPECT_FALSE(counters.joules(before, counters.now()).has_value());
  EXPECT_FALSE(cli::EnergyCounters(path("nowhere")).available());
  EXPECT_THAT(cli::EnergyCounters(path("nowhere")).reason(), HasSubstr("RAPL"));
}

}  // namespace
}  // namespace qeval::test
