// The examples for clusters: their own command lines, as several processes at a time.
#include <filesystem>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli_fixture.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;

class ClusterCli : public Cli {
 protected:
  /// A job of the scheduler: a shell with the variables of its environment.
  Running start(const std::string& script, std::vector<std::string> variables) const {
    static int count = 0;
    const fs::path scratch = path(fmt::format("job-{}", ++count));
    qeval::create_directories(scratch);
    const fs::path bin = fs::path(QEVAL_BINARY).parent_path();
    std::vector<std::string> words{"env",
                                   fmt::format("PATH={}:/usr/bin:/bin", bin.string()),
                                   "MODEL=" + path("model"),
                                   "TASKS=piqa,sample",
                                   "DATA=" + path("data"),
                                   "OUT=" + path("out")};
    words.insert(words.end(), variables.begin(), variables.end());
    words.insert(words.end(), {"bash", "-c", script});
    return start_program(scratch, words);
  }
  /// Starts all at once and waits for them.
  void run_jobs(const std::string& script, const std::vector<std::vector<std::string>>& jobs) const {
    std::vector<Running> running;
    for (const auto& variables : jobs) running.push_back(start(script, variables));
    for (const Running& job : running) expect_success(wait_for(job));
  }
  void expect_results_of_one_process() const {
    expect_success(eval({"-t", "piqa,sample", "-o", path("whole")}));
    for (const std::string task : {"piqa", "sample_qa", "sample_text", "sample_letters"}) {
      const std::string file = "/samples_" + task + ".jsonl";
      EXPECT_EQ(read("out/merged" + file), read("whole" + file));
    }
    EXPECT_EQ(nlohmann::json::parse(read("out/merged/results.json"))["results"],
              nlohmann::json::parse(read("whole/results.json"))["results"]);
  }
};

std::string cluster_file(const std::string& name) {
  return read_file(fs::path(QEVAL_CLUSTER_DIR) / name);
}

/// The shell script that a container's `args` hold: the block below "- |".
std::string container_script(const std::string& yaml) {
  constexpr std::string_view kBegin = "            - |\n", kIndent = "              ";
  std::string script;
  size_t at = yaml.find(kBegin);
  if (at == std::string::npos) return script;
  for (at += kBegin.size(); yaml.compare(at, kIndent.size(), kIndent) == 0;) {
    const size_t end = yaml.find('\n', at) + 1;
    script += yaml.substr(at + kIndent.size(), end - at - kIndent.size());
    at = end;
  }
  return script;
}

TEST_F(ClusterCli, TheSlurmArrayAndItsMerge) {
  std::vector<std::vector<std::string>> tasks;
  for (int i = 1; i <= 3; ++i)
    tasks.push_back(
        {fmt::format("SLURM_ARRAY_TASK_ID={}", i), "SLURM_ARRAY_TASK_COUNT=3", "SLURM_CPUS_PER_TASK=1"});
  run_jobs(cluster_file("slurm-array.sh"), tasks);
  run_jobs(cluster_file("slurm-array.sh"), {tasks[1]});  // requeued after its end
  run_jobs(cluster_file("slurm-merge.sh"), {{}});
  expect_results_of_one_process();
}

TEST_F(ClusterCli, TheKubernetesJobAndItsMerge) {
  std::vector<std::vector<std::string>> pods;
  for (int i = 0; i < 3; ++i)
    pods.push_back({fmt::format("JOB_COMPLETION_INDEX={}", i), "SHARDS=3", "THREADS=1"});
  const std::string script = container_script(cluster_file("kubernetes-job.yaml"));
  ASSERT_THAT(script, testing::HasSubstr("--shard"));
  run_jobs(script, pods);
  run_jobs(container_script(cluster_file("kubernetes-merge.yaml")), {{}});
  expect_results_of_one_process();
}

}  // namespace
}  // namespace qeval::test
