// Runs of several ranks, started by mpirun as users start them: the same bytes as one process, whoever dies.
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "../cli/cli_fixture.h"
#include "base/file.h"
#include "eval/results/run_directory.h"
#include "eval/results/sample_file.h"
#include "eval/results/statistics.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Mpi : public Cli {
 protected:
  Mpi() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "Line " + std::to_string(i * 37 % 101) + " of a calibration text.\n";
    write("calibration.txt", text);
  }

  std::vector<std::string> mpirun(int ranks, const std::vector<std::string>& arguments) const {
    // Where a rank has died, the others are killed at once, not a second after they were told.
    std::vector<std::string> words{QEVAL_MPIRUN,
                                   "--allow-run-as-root",
                                   "--oversubscribe",
                                   "--bind-to",
                                   "none",
                                   "--mca",
                                   "odls_base_sigkill_timeout",
                                   "0",
                                   "-n",
                                   std::to_string(ranks),
                                   QEVAL_BINARY};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return words;
  }
  Running start_on(int ranks, const std::vector<std::string>& arguments) const {
    return start_program(path(""), mpirun(ranks, arguments));
  }
  Outcome run_on(int ranks, const std::vector<std::string>& arguments) const {
    return wait_for(start_on(ranks, arguments));
  }
  std::vector<std::string> eval_arguments(std::vector<std::string> more) const {
    more.insert(more.begin(), {"eval", "-m", path("model"), "-d", path("data")});
    return more;
  }
  /// All files below a folder, without what may differ between two runs of the same work.
  std::map<std::string, std::string> content(const std::string& folder) const;
  /// The process that is this rank of the run into out/, once it runs.
  std::optional<pid_t> process_of_rank(int64_t rank) const;
  /// The ids of the documents that a killed run has finished, whichever rank has them.
  std::set<int64_t> finished(const std::string& folder, const std::string& task) const;
};

/// A file whose size the system does not tell.
std::string read_proc(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void forget_times(ordered_json& json, const std::string& folder) {
  if (json.is_object()) {
    for (const char* key : {"seconds", "date", "peak_rss_bytes", "threads", "command", "commands"})
      json.erase(key);
  }
  if (json.is_string()) {  // where the run is
    std::string text = json;
    for (size_t at; (at = text.find(folder)) != std::string::npos;) text.replace(at, folder.size(), "FOLDER");
    json = text;
  }
  if (!json.is_structured()) return;
  for (auto& item : json) forget_times(item, folder);
}

std::map<std::string, std::string> Mpi::content(const std::string& folder) const {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(path(folder))) {
    if (!entry.is_regular_file()) continue;
    const std::string name = fs::relative(entry.path(), path(folder));
    std::string text = read_file(entry.path());
    if (name.starts_with("report")) continue;  // tells times
    if (name.ends_with("results.json") || name.ends_with("quantize.json") || name.ends_with("compare.json")) {
      ordered_json json = ordered_json::parse(text);
      forget_times(json, path(folder));
      text = json.dump();
    }
    out[name] = text;
  }
  return out;
}

std::optional<pid_t> Mpi::process_of_rank(int64_t rank) const {
  const std::string variable = fmt::format("OMPI_COMM_WORLD_RANK={}", rank) + '\0';
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    try {  // it may end meanwhile, or be another user's
      const std::string words = read_proc(entry.path() / "cmdline");
      if (!words.starts_with(QEVAL_BINARY) || words.find(path("out")) == std::string::npos) continue;
      if (read_proc(entry.path() / "environ").find(variable) != std::string::npos) return std::stoi(name);
    } catch (const std::exception&) {
      continue;
    }
  }
  return std::nullopt;
}

std::set<int64_t> Mpi::finished(const std::string& folder, const std::string& task) const {
  std::set<int64_t> ids;
  if (!fs::exists(path(folder))) return ids;
  for (const auto& entry : fs::recursive_directory_iterator(path(folder))) {
    const std::string name = entry.path().filename();
    if (name != qeval::eval::journal_file(task) && name != qeval::eval::samples_file(task)) continue;
    qeval::eval::for_each_sample(entry.path(), qeval::eval::Tail::drop, [&](qeval::eval::SampleLine&& line) {
      ids.insert(line.sample.scores.doc_id);
    });
  }
  return ids;
}

TEST_F(Mpi, AnyNumberOfRanksLeavesTheBytesOfOneProcess) {
  const auto arguments = [&](const std::string& output) {
    return eval_arguments({"-t", "piqa,sample", "--keep-logprobs", "-o", path(output)});
  };
  expect_success(run(arguments("alone")));
  const auto expected = content("alone");
  ASSERT_EQ(expected.size(), 10U);  // results.json, run.json, and two files for each of four tasks
  for (const int ranks : {1, 2, 3}) {
    const std::string output = fmt::format("on-{}", ranks);
    const Outcome outcome = run_on(ranks, arguments(output));
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    EXPECT_EQ(content(output), expected) << ranks << " ranks";
    const size_t table = outcome.output.find("sample_qa");
    EXPECT_NE(table, std::string::npos);
    EXPECT_EQ(outcome.output.find("Results: ", outcome.output.find("Results: ") + 1), std::string::npos)
        << "only the first rank prints";
  }
}

TEST_F(Mpi, SeveralArithmeticsAreComparedByRanksToo) {
  const std::vector<std::string> quantize{
      "quantize",  "-m", path("model"),       "--method", "rtn", "--calibration", path("calibration.txt"),
      "--samples", "4",  "--sequence-length", "24"};
  std::vector<std::string> alone = quantize, shared = quantize;
  alone.insert(alone.end(), {"-o", path("q")});
  shared.insert(shared.end(), {"-o", path("q2")});
  expect_success(run(alone));
  EXPECT_EQ(run_on(2, shared).status, 0);
  EXPECT_EQ(content("q2"), content("q"));
  const auto arguments = [&](const std::string& output) {
    return std::vector<std::string>{"eval",       "-m",           path("q"),           "-d",
                                    path("data"), "-t",           "piqa,sample_qa",    "-o",
                                    path(output), "--arithmetic", "float,fake,integer"};
  };
  expect_success(run(arguments("alone")));
  const Outcome outcome = run_on(3, arguments("on-3"));
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(content("on-3"), content("alone"));
}

TEST_F(Mpi, AComparisonWithLearnedMethodsIsTheSame) {
  const auto arguments = [&](const std::string& output) {
    return std::vector<std::string>{"compare",
                                    "-m",
                                    path("model"),
                                    "-d",
                                    path("data"),
                                    "-t",
                                    "piqa,sample",
                                    "--calibration",
                                    path("calibration.txt"),
                                    "--samples",
                                    "4",
                                    "--sequence-length",
                                    "24",
                                    "--methods",
                                    "smoothquant,omniquant,mobilequant",
                                    "--schemes",
                                    "w4a8",
                                    "--epochs",
                                    "2",
                                    "--batch-size",
                                    "2",
                                    "--integer",
                                    "best",
                                    "-o",
                                    path(output)};
  };
  expect_success(run(arguments("alone")));
  const Outcome outcome = run_on(2, arguments("on-2"));
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  const auto alone = content("alone"), shared = content("on-2");
  ASSERT_EQ(alone.size(), shared.size());
  for (const auto& [name, text] : alone) {
    if (name != "matrix.json") {
      EXPECT_EQ(shared.at(name), text) << name;
    }
  }
  // Every step of learning, to the bit.
  EXPECT_EQ(alone.count("checkpoints/mobilequant-w4a8/training.jsonl"), 1U);
}

TEST_F(Mpi, WhoeverDiesTenTimesNothingIsLost) {
  // Long enough to be killed in: a token at a time.
  constexpr int kDocuments = 1500;
  std::string rows;
  for (int i = 0; i < kDocuments; ++i) {
    rows +=
        fmt::format(
            R"({{"goal": "Question {} of many, {}", "sol1": "This.", "sol2": "Or that {}?", "label": {}}})",
            i, i * i, i % 7, i % 2) +
        "\n";
  }
  write("data/piqa/validation.jsonl", rows);
  const auto arguments = [&](const std::string& output) {
    return eval_arguments(
        {"-t", "piqa", "--batch-tokens", "1", "--keep-logprobs", "--resume", "-o", path(output)});
  };
  std::vector<std::string> unbroken = arguments("alone");
  std::erase(unbroken, "--resume");
  expect_success(run(unbroken));

  const auto lines_in_journals = [&] {
    size_t lines = 0;
    for (int64_t rank = 0; rank < 4; ++rank) {
      const fs::path folder = rank == 0 ? fs::path(path("out")) : qeval::eval::rank_folder(path("out"), rank);
      std::error_code code;
      if (!fs::exists(folder / "journal_piqa.jsonl", code)) continue;
      lines += static_cast<size_t>(std::ranges::count(read_file(folder / "journal_piqa.jsonl"), '\n'));
    }
    return lines;
  };
  qeval::eval::Random random(11);
  std::set<int64_t> known;
  int kills = 0;
  for (int attempt = 0; kills < 10; ++attempt) {
    const int ranks = 2 + attempt % 2;  // resumed by another number each time
    const auto victim = static_cast<int64_t>(random.below(static_cast<uint64_t>(ranks)));
    const size_t enough = known.size() + 2 + random.below(8);
    const bool at_once = random.below(4) == 0;  // maybe before it has taken over what the last one left
    const Running job = start_on(ranks, arguments("out"));
    const auto has_ended = [&] {  // without being waited for
      siginfo_t state{};
      return ::waitid(P_PID, static_cast<id_t>(job.process), &state, WEXITED | WNOHANG | WNOWAIT) != 0 ||
             state.si_pid != 0;
    };
    bool killed = false;
    while (!killed && !has_ended()) {
      std::this_thread::yield();
      try {
        if (at_once) {
          // Not while ranks join: mpirun of Open MPI 4.1 may hang where one dies then.
          const std::optional<pid_t> first = process_of_rank(0);
          const fs::path lock = path("out/.lock");
          if (!first || !fs::exists(lock) || !read_file(lock).starts_with(fmt::format("process {} ", *first)))
            continue;
        } else if (lines_in_journals() < enough || finished("out", "piqa").size() < enough) {
          continue;
        }
      } catch (const std::exception&) {  // files come and go while a rank's work is taken over
        continue;
      }
      const std::optional<pid_t> process = process_of_rank(victim);
      killed = process && ::kill(*process, SIGKILL) == 0;
    }
    const Outcome outcome = wait_for(job);
    if (outcome.status == 0) {  // it was done before: begin anew
      EXPECT_EQ(content("out"), content("alone"));
      fs::remove_all(path("out"));
      known.clear();
      continue;
    }
    ASSERT_TRUE(killed) << "it failed by itself: " << outcome.error;
    ++kills;
    if (!at_once) {  // mpirun says who died
      EXPECT_THAT(outcome.error, AllOf(HasSubstr(fmt::format("rank {}", victim)), HasSubstr("Killed")));
    }
    const std::set<int64_t> left = finished("out", "piqa");
    EXPECT_TRUE(std::ranges::includes(left, known)) << "kill " << kills;
    if (!at_once) {
      EXPECT_GE(left.size(), enough);
    }
    known = left;
  }
  const Outcome last = run_on(4, arguments("out"));
  EXPECT_EQ(last.status, 0) << last.error;
  EXPECT_EQ(content("out"), content("alone"));
}

TEST_F(Mpi, OneProcessContinuesWhatRanksBegan) {
  expect_success(run(eval_arguments({"-t", "piqa,sample", "-o", path("alone")})));
  // As two ranks leave it that were killed: a journal below the folder of the first.
  {
    fs::create_directories(path("out/rank-1"));
    for (const char* folder : {"out", "out/rank-1"})
      write(std::string(folder) + "/run.json", read("alone/run.json"));
    const std::string samples = read("alone/samples_sample_qa.jsonl");
    write("out/rank-1/journal_sample_qa.jsonl", samples.substr(0, samples.find('\n') + 1));
  }
  expect_success(run(eval_arguments({"-t", "piqa,sample", "--resume", "-o", path("out")})));
  EXPECT_EQ(content("out"), content("alone"));
}

TEST_F(Mpi, AMistakeIsToldOnce) {
  const auto expect_once = [](const Outcome& outcome, const std::string& part) {
    EXPECT_NE(outcome.status, 0);
    const size_t first = outcome.error.find("qeval: ");
    ASSERT_NE(first, std::string::npos) << outcome.error;
    EXPECT_THAT(outcome.error, HasSubstr(part));
    EXPECT_EQ(outcome.error.find("qeval: ", first + 1), std::string::npos) << outcome.error;
    EXPECT_THAT(outcome.error, Not(HasSubstr("MPI_ABORT")));
  };
  expect_once(run_on(2, eval_arguments({"-t", "piqua", "-o", path("out")})), "piqua");
  expect_once(run_on(2, eval_arguments({"-t", "piqa"})), "several ranks need the output folder: -o DIR");
  expect_once(run_on(2, eval_arguments({"-t", "piqa", "--shard", "1/2", "-o", path("out")})),
              "without mpirun");
  expect_once(run_on(2, {"tokenize", "-m", path("model")}),
              "those that share their work: eval, quantize, compare");
  expect_once(run_on(2, {"eval", "-m", path("nowhere"), "-t", "sample", "-o", path("out")}), "nowhere");
  write("file", "no folder");
  expect_once(run_on(2, eval_arguments({"-t", "piqa", "-o", path("file/out")})), "file");
  expect_success(run(eval_arguments({"-t", "piqa", "-o", path("piqa")})));
  expect_once(run_on(2, eval_arguments({"-t", "sample_qa", "-o", path("piqa")})), "other settings");
}

TEST_F(Mpi, RanksWithAnotherModelAreRefused) {
  std::string weights = tiny_weights();
  weights.back() = static_cast<char>(weights.back() ^ 1);
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json"})
    write(std::string("other/") + file, read(std::string("model/") + file));
  write("other/model.safetensors", weights);
  std::vector<std::string> words = mpirun(1, eval_arguments({"-t", "piqa", "-o", path("out")}));
  words.insert(words.end(), {":", "-n", "1", QEVAL_BINARY, "eval", "-m", path("other"), "-d", path("data"),
                             "-t", "piqa", "-o", path("out")});
  const Outcome outcome = wait_for(start_program(path(""), words));
  EXPECT_NE(outcome.status, 0);
  EXPECT_THAT(outcome.error, HasSubstr("qeval: rank 1 of 2: differs from the first rank in: weights ("));
}

TEST_F(Mpi, TheSlurmExample) {
  expect_success(run(eval_arguments({"-t", "piqa,sample", "-o", path("alone")})));
  const fs::path bin = fs::path(QEVAL_BINARY).parent_path();
  const Running job = start_program(
      path(""),
      {"env",
       fmt::format("PATH={}:{}:/usr/bin:/bin", bin.string(), fs::path(QEVAL_MPIRUN).parent_path().string()),
       "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "OMPI_MCA_rmaps_base_oversubscribe=1",
       "MODEL=" + path("model"), "TASKS=piqa,sample", "DATA=" + path("data"), "OUT=" + path("out"),
       "SLURM_NTASKS=2", "bash", (fs::path(QEVAL_CLUSTER_DIR) / "slurm-mpi.sh").string()});
  const Outcome outcome = wait_for(job);
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(content("out"), content("alone"));
}

}  // namespace
}  // namespace qeval::test
