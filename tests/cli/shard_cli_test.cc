// A run in shards: together they leave what one process leaves, and what does not fit is named.
#include <filesystem>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"
#include "eval/tasks/registry.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

class ShardCli : public Cli {
 protected:
  /// Runs shard I/N of `arguments` into PREFIX-I.
  Outcome shard(int index, int count, std::vector<std::string> arguments, const std::string& prefix) const {
    arguments.insert(arguments.end(), {"--shard", fmt::format("{}/{}", index, count), "-o",
                                       path(fmt::format("{}-{}", prefix, index))});
    return eval(arguments);
  }
  Outcome merge(const std::vector<std::string>& shards, const std::string& output) const {
    std::vector<std::string> all{"merge"};
    for (const std::string& shard : shards) all.push_back(path(shard));
    all.insert(all.end(), {"-o", path(output)});
    return run(all);
  }
  /// Two questions in every subject of a group that has a mean.
  void write_group() const {
    for (const qeval::eval::Group& group : qeval::eval::builtin_groups()) {
      if (group.name != "mmlu_other") continue;
      for (const std::string& task : group.tasks) {
        const std::string subject = task.substr(std::string("mmlu_").size());
        std::string rows;
        for (int i = 0; i < 2; ++i) {
          const ordered_json row{{"question", fmt::format("What is {} of {}?", i, subject)},
                                 {"choices", {"one", "two", "three", "four"}},
                                 {"answer", i},
                                 {"subject", subject}};
          rows += row.dump() + "\n";
        }
        write(fmt::format("data/mmlu/{}/test.jsonl", subject), rows);
      }
    }
  }
  /// results.json without what may differ between two runs of the same work.
  ordered_json results(const std::string& folder) const {
    ordered_json json = ordered_json::parse(read(folder + "/results.json"));
    for (const char* key : {"seconds", "date", "peak_rss_bytes", "command"}) json.erase(key);
    return json;
  }
  void expect_same_folders(const std::string& there, const std::string& here) const {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(path(there))) {
      const std::string name = entry.path().filename();
      ++files;
      if (name == "results.json") continue;
      EXPECT_EQ(read(there + "/" + name), read(here + "/" + name)) << name;
    }
    const auto here_files = std::distance(fs::directory_iterator(path(here)), fs::directory_iterator());
    EXPECT_EQ(files, here_files);
    EXPECT_EQ(results(there), results(here));
  }
};

TEST_F(ShardCli, AnyNumberOfShardsGivesTheBytesOfOneProcess) {
  write_group();
  const std::vector<std::string> arguments{"-t", "piqa,sample,mmlu_other", "--keep-logprobs"};
  std::vector<std::string> whole = arguments;
  whole.insert(whole.end(), {"-o", path("whole")});
  expect_success(eval(whole));
  for (const int count : {1, 2, 5}) {
    SCOPED_TRACE(count);
    std::vector<std::string> folders;
    for (int i = count; i >= 1; --i) {  // merged in another order than they are numbered
      const std::string prefix = fmt::format("of{}", count);
      std::vector<std::string> own = arguments;
      own.insert(own.end(), {"--batch-tokens", std::to_string(16 + 9 * i), "--threads", "1"});
      expect_success(shard(i, count, own, prefix));
      EXPECT_FALSE(fs::exists(path(fmt::format("{}-{}/results.json", prefix, i))));
      folders.push_back(fmt::format("{}-{}", prefix, i));
    }
    std::rotate(folders.begin(), folders.begin() + count / 2, folders.end());
    const std::string merged = fmt::format("merged{}", count);
    expect_success(merge(folders, merged));
    ordered_json json = ordered_json::parse(read(merged + "/results.json"));
    json["environment"]["threads"] =
        ordered_json::parse(read("whole/results.json"))["environment"]["threads"];
    write(merged + "/results.json", json.dump());
    expect_same_folders("whole", merged);
  }
}

TEST_F(ShardCli, MergingKeepsWhichMeanStandsForAGroup) {
  write_group();
  const std::vector<std::string> arguments{"-t", "mmlu_other", "--protocol", "lm-eval-0.3"};
  std::vector<std::string> whole = arguments;
  whole.insert(whole.end(), {"-o", path("whole")});
  expect_success(eval(whole));
  for (const int i : {1, 2}) expect_success(shard(i, 2, arguments, "part"));
  expect_success(merge({"part-1", "part-2"}, "merged"));
  EXPECT_EQ(results("whole")["unweighted_groups"], ordered_json::array({"mmlu_other"}));
  expect_same_folders("whole", "merged");
  expect_success(run({"verify", path("merged"), path("part-1")}));
}

TEST_F(ShardCli, DivergencesFromABaseAreMergedToo) {
  expect_success(eval({"-t", "piqa,sample_qa", "-o", path("base"), "--keep-logprobs"}));
  const std::vector<std::string> against{"-t", "piqa,sample_qa", "--base", path("base")};
  std::vector<std::string> whole = against;
  whole.insert(whole.end(), {"-o", path("whole")});
  expect_success(eval(whole));
  for (const int i : {1, 2}) expect_success(shard(i, 2, against, "part"));
  expect_success(merge({"part-2", "part-1"}, "merged"));
  expect_same_folders("whole", "merged");
}

TEST_F(ShardCli, WhatIsMissingTwiceOrUnfinishedIsNamed) {
  for (const int i : {1, 2, 3}) expect_success(shard(i, 3, {"-t", "piqa,sample_qa"}, "part"));
  expect_one_line(merge({"part-3"}, "out"), kFailed, "of 3 shards these are missing: 1/3, 2/3");
  expect_one_line(merge({"part-1", "part-2", "part-2", "part-3"}, "out"), kFailed, "are both shard 2/3");
  expect_one_line(merge({"part-1", "nowhere"}, "out"), kFailed, "nowhere: no folder of a shard");
  expect_one_line(merge({"part-1", "data"}, "out"), kFailed, "data: holds no shard.json");
  expect_one_line(merge({"part-1", "part-2", "part-3"}, "part-2"), kFailed, "choose another output");
  expect_success(eval({"-t", "piqa", "-o", path("whole")}));
  expect_one_line(merge({"part-1", "whole"}, "out"), kFailed, "whole: holds results of a whole run");
  fs::remove(path("part-2/shard.json"));
  expect_one_line(merge({"part-1", "part-2", "part-3"}, "out"), kFailed, "part-2: shard 2/3 is not finished");
  EXPECT_FALSE(fs::exists(path("out")));
  expect_success(shard(2, 3, {"-t", "piqa,sample_qa", "--resume"}, "part"));
  expect_success(merge({"part-1", "part-2", "part-3"}, "out"));
  expect_success(merge({"part-1", "part-2", "part-3"}, "out"));  // done again, it finds everything done
}

TEST_F(ShardCli, AShardOfAnotherRunIsNamedWithWhatDiffers) {
  const std::vector<std::string> task{"-t", "sample_qa"};
  expect_success(shard(1, 2, task, "part"));
  expect_success(shard(2, 2, task, "part"));
  expect_success(shard(2, 3, task, "third"));
  expect_one_line(merge({"part-1", "third-2"}, "out"), kFailed, "is shard 1/2, ");
  std::vector<std::string> other = task;
  other.insert(other.end(), {"--max-length", "64"});
  expect_success(shard(2, 2, other, "short"));
  expect_one_line(merge({"part-1", "short-2"}, "out"), kFailed,
                  "short-2 are of runs with different settings: max_length");

  const std::string record = read("part-2/shard.json");
  ordered_json changed = ordered_json::parse(record);
  changed["fingerprint"]["task sample_qa"] = "99";
  write("part-2/shard.json", changed.dump());
  expect_one_line(merge({"part-1", "part-2"}, "out"), kFailed, "task sample_qa (1 there, 99 here)");
  write("part-2/shard.json", record);
  const std::string samples = read("part-2/samples_sample_qa.jsonl");
  write("part-2/samples_sample_qa.jsonl", samples.substr(0, samples.find('\n') + 1));
  expect_one_line(merge({"part-1", "part-2"}, "out"), kFailed, "its SHA-256 differs");
  write("part-2/samples_sample_qa.jsonl", samples);

  std::string weights = tiny_weights();
  weights.back() = static_cast<char>(weights.back() ^ 1);
  write("model/model.safetensors", weights);
  expect_success(shard(2, 2, task, "heavier"));
  expect_one_line(merge({"part-1", "heavier-2"}, "out"), kFailed, "weights (");
}

/// Only the samples' hashes were looked at, and what was damaged beside them became part of the whole.
TEST_F(ShardCli, DamagedCompanionsAreNamed) {
  expect_success(eval({"-t", "piqa,sample_qa", "--keep-logprobs", "-o", path("base")}));
  const std::vector<std::string> arguments{"-t", "piqa,sample_qa", "--keep-logprobs", "--base", path("base")};
  for (const int i : {1, 2}) expect_success(shard(i, 2, arguments, "part"));
  for (const std::string file : {"part-1/logprobs_piqa.bin", "part-2/divergence_sample_qa.jsonl"}) {
    const std::string kept = read(file);
    std::string damaged = kept;
    damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
    write(file, damaged);
    expect_one_line(merge({"part-1", "part-2"}, "out"), kFailed,
                    path(file) + ": is not the file that shard.json beside it describes");
    write(file, kept);
  }
  const std::string record = read("part-2/shard.json");
  ordered_json forgetful = ordered_json::parse(record);
  forgetful["run"]["tasks"]["piqa"].erase("companion_hashes");
  write("part-2/shard.json", forgetful.dump());
  expect_one_line(merge({"part-1", "part-2"}, "out"), kFailed, "records no hash of divergence_piqa.jsonl");
  write("part-2/shard.json", record);
  EXPECT_FALSE(fs::exists(path("out")));
  expect_success(merge({"part-1", "part-2"}, "out"));
}

TEST_F(ShardCli, AShardsFolderBelongsToThatShard) {
  expect_success(shard(1, 2, {"-t", "sample_qa"}, "part"));
  expect_one_line(eval({"-t", "sample_qa", "--shard", "2/2", "--resume", "-o", path("part-1")}), kFailed,
                  "shard (1/2 there, 2/2 here)");
  expect_one_line(eval({"-t", "sample_qa", "--resume", "-o", path("part-1")}), kFailed, "shard (1/2 there");
}

TEST_F(ShardCli, WrongUsageIsNamed) {
  const auto with = [&](const std::string& shard) {
    return eval({"-t", "piqa", "--shard", shard, "-o", path("out")});
  };
  for (const std::string wrong : {"0/3", "4/3", "1", "/2", "1/", "1/0", "1/-2", "a/b", "1/2x", "1/100001"})
    expect_one_line(with(wrong), kWrongUsage, "shard " + wrong + ": which of how many expected");
  expect_one_line(eval({"-t", "piqa", "--shard", "1/2"}), kWrongUsage, "-o DIR");
  expect_one_line(eval({"-t", "piqa", "--shard", "1/2", "--arithmetic", "float,fake", "-o", path("out")}),
                  kWrongUsage, "one --arithmetic");
  expect_one_line(run({"merge", "-o", path("out")}), kWrongUsage, "folders of all shards");
  expect_one_line(run({"merge", path("part-1")}), kWrongUsage, "--output");
}

}  // namespace
}  // namespace qeval::test
