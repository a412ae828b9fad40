// Folders of results belong to one piece of work: what would mix or overwrite it is refused, and says why.
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli_fixture.h"
#include "model/kernels/cpu.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

class FolderCli : public Cli {
 protected:
  /// A task of two questions whose right answers are in `gold` of its rows, "first" or "second".
  void write_task(const std::string& gold) const {
    write("task/rows.jsonl",
          "{\"q\": \"One\", \"c\": [\"a\", \"b\"], \"first\": 0, \"second\": 1}\n"
          "{\"q\": \"Two\", \"c\": [\"c\", \"d\"], \"first\": 1, \"second\": 0}\n");
    write("task/mine.json",
          R"({"name": "mine", "data": "rows.jsonl", "prompt": "{{q}}", "choices": "c", "gold": ")" + gold +
              "\"}");
  }
  Outcome eval_task(std::vector<std::string> more) const {
    more.insert(more.begin(), {"-t", path("task/mine.json")});
    return eval(more);
  }
  Outcome compare(const std::string& output, std::vector<std::string> more) const {
    write("text.txt", std::string(300, 'x') + " and a few words to calibrate on\n");
    more.insert(more.begin(), {"compare", "-m", path("model"), "-d", path("data"), "-t", "piqa", "--methods",
                               "rtn", "--schemes", "w8a8", "--calibration", path("text.txt"), "--samples",
                               "2", "--sequence-length", "16", "-o", path(output)});
    return run(more);
  }
  /// q/, a quantized model.
  void quantize() const {
    write("text.txt", std::string(300, 'x') + " and a few words to calibrate on\n");
    expect_success(run({"quantize", "-m", path("model"), "--method", "rtn", "--calibration", path("text.txt"),
                        "--samples", "2", "--sequence-length", "16", "-o", path("q")}));
  }
  Outcome eval_several(const std::string& output, std::vector<std::string> more,
                       const std::string& model = "q") const {
    more.insert(more.begin(), {"eval", "-m", path(model), "-d", path("data"), "-t", "piqa", "--arithmetic",
                               "float,fake", "-o", path(output)});
    return run(more);
  }
  /// Every file below a folder, with what is in it.
  std::map<std::string, std::string> everything_in(const std::string& folder) const {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(path(folder)))
      out[entry.path()] = entry.is_regular_file() ? read_file(entry.path()) : "";
    return out;
  }
};

/// A resumed run printed the scores of the old answers, and shards with different ones were merged.
TEST_F(FolderCli, ATaskWithOtherRightAnswersIsAnotherTask) {
  write_task("first");
  expect_success(eval_task({"-o", path("out")}));
  expect_success(eval_task({"--shard", "1/2", "-o", path("s1")}));
  expect_success(eval_task({"--keep-logprobs", "-o", path("base")}));
  write_task("second");
  expect_one_line(eval_task({"--base", path("base"), "-o", path("new")}), kFailed,
                  "base: cannot be the base: task mine had other right answers or metrics there");
  expect_one_line(eval_task({"-o", path("out"), "--resume"}), kFailed, "other settings: answers mine (");
  expect_success(eval_task({"--shard", "2/2", "-o", path("s2")}));
  expect_one_line(run({"merge", path("s1"), path("s2"), "-o", path("merged")}), kFailed, "answers mine (");
}

/// The results named the last kernels only.
TEST_F(FolderCli, OtherKernelsInOneFolderAreWarnedOf) {
  if (!model::cpu_supports(model::CpuPath::avx2)) GTEST_SKIP() << "the CPU has one path";
  quantize();
  const auto evaluate = [&](const std::string& cpu, const std::string& arithmetic, const std::string& output,
                            std::vector<std::string> more) {
    setenv("QEVAL_CPU", cpu.c_str(), 1);
    more.insert(more.begin(), {"eval", "-m", path("q"), "-d", path("data"), "-t", "piqa", "--arithmetic",
                               arithmetic, "-o", path(output)});
    const Outcome outcome = run(more);
    unsetenv("QEVAL_CPU");
    return outcome;
  };
  const std::string warning = "warning: the documents are computed by different kernels (avx2; portable)";
  for (const std::string arithmetic : {"float", "fake", "integer"}) {
    SCOPED_TRACE(arithmetic);
    expect_success(evaluate("portable", arithmetic, arithmetic, {}));
    // As if it had been killed after the first of two documents.
    fs::remove(path(arithmetic + "/results.json"));
    const std::string samples = read(arithmetic + "/samples_piqa.jsonl");
    fs::remove(path(arithmetic + "/samples_piqa.jsonl"));
    write(arithmetic + "/journal_piqa.jsonl", samples.substr(0, samples.find('\n') + 1));
    const Outcome resumed = evaluate("avx2", arithmetic, arithmetic, {"--resume"});
    EXPECT_EQ(resumed.status, 0);
    if (arithmetic == "integer") {
      EXPECT_THAT(resumed.error, IsEmpty());
    } else {
      EXPECT_THAT(resumed.error, HasSubstr(warning));
    }
    const auto results = nlohmann::json::parse(read(arithmetic + "/results.json"));
    EXPECT_EQ(results["environment"]["cpu_path"], "avx2; portable");
    expect_success(run({"verify", path(arithmetic)}));

    expect_success(evaluate("portable", arithmetic, arithmetic + "1", {"--shard", "1/2"}));
    expect_success(evaluate("avx2", arithmetic, arithmetic + "2", {"--shard", "2/2"}));
    const Outcome merged =
        run({"merge", path(arithmetic + "1"), path(arithmetic + "2"), "-o", path(arithmetic + "m")});
    EXPECT_EQ(merged.status, 0);
    EXPECT_EQ(merged.error, resumed.error);
  }
}

/// compare overwrote the results of a run, and runs those of a comparison.
TEST_F(FolderCli, IsUsedForOneThing) {
  quantize();
  expect_success(eval({"-t", "piqa", "-o", path("run")}));
  for (const std::string i : {"1", "2"})
    expect_success(eval({"-t", "piqa", "--shard", i + "/2", "-o", path("s" + i)}));
  expect_success(compare("compared", {}));
  expect_success(eval_several("several", {}));
  for (const char* gone : {"unfinished", "begun"}) fs::create_directories(path(gone));
  fs::copy_file(path("compared/matrix.json"), path("unfinished/matrix.json"));
  fs::copy(path("several/float"), path("begun/float"));
  fs::copy_file(path("several/compare.json"), path("begun/compare.json"));

  const std::map<std::string, std::string> holds{{"run", "holds a run of qeval eval or merge"},
                                                 {"s1", "holds a run of qeval eval or merge"},
                                                 {"compared", "holds a comparison of qeval compare"},
                                                 {"unfinished", "holds a comparison of qeval compare"},
                                                 {"several", "holds a comparison of qeval eval in several"},
                                                 {"begun", "holds a comparison of qeval eval in several"},
                                                 {"q", "holds a model (config.json)"}};
  for (const auto& [folder, what] : holds) {
    SCOPED_TRACE(folder);
    const std::string message = path(folder) + ": " + what;
    const auto before = everything_in(folder);
    if (!what.starts_with("holds a run")) {
      for (const char* option : {"--resume", "--plan"})
        expect_one_line(eval({"-t", "piqa", option, "-o", path(folder)}), kFailed, message);
      expect_one_line(run({"merge", path("s1"), path("s2"), "-o", path(folder)}), kFailed, message);
    }
    for (const char* option : {"--threads=1", "--plan"}) {
      if (what.find("qeval compare") == std::string::npos)
        expect_one_line(compare(folder, {option}), kFailed, message);
    }
    for (const char* option : {"--resume", "--plan"}) {
      if (what.find("several") == std::string::npos)
        expect_one_line(eval_several(folder, {option}), kFailed, message);
    }
    EXPECT_EQ(everything_in(folder), before);
  }
  expect_success(eval_several("begun", {"--resume"}));
  expect_success(run({"verify", path("begun")}));
}

/// What begins a comparison of arithmetics says so before the first document is scored.
TEST_F(FolderCli, AComparisonOfArithmeticsIsOneFromTheStart) {
  quantize();
  fs::create_directories(path("out/float"));
  write("out/float/run.json", R"({"fingerprint": {"weights": "others"}})");
  write("out/float/samples_piqa.jsonl", "");
  expect_one_line(eval_several("out", {}), kFailed, "out/float: holds unfinished work of a run with other");
  expect_one_line(eval({"-t", "piqa", "-o", path("out")}), kFailed, "holds a comparison of qeval eval");
  const Outcome report = run({"report", path("out")});
  expect_one_line(report, kFailed, "none of the 2 runs");
}

/// The plan of a comparison did not look into the folder, and that of an evaluation neither there nor at the
/// second arithmetic, which failed when the first had been scored.
TEST_F(FolderCli, APlanChecksTheFolderAndMakesNothing) {
  expect_success(compare("compared", {}));
  const auto compared = everything_in("compared");
  expect_one_line(compare("compared", {"--limit", "1", "--plan"}), kFailed,
                  "evaluation limit (none there, 1 here)");
  expect_success(compare("compared", {"--plan"}));
  EXPECT_EQ(everything_in("compared"), compared);

  expect_success(eval({"-t", "piqa", "-o", path("run")}));
  expect_one_line(eval({"-t", "piqa", "--limit", "1", "--plan", "-o", path("run")}), kFailed,
                  "limit (none there, 1 here)");
  fs::remove(path("run/results.json"));
  expect_one_line(eval({"-t", "piqa", "--plan", "-o", path("run")}), kFailed, "continue it with --resume");
  expect_success(eval({"-t", "piqa", "--plan", "--resume", "-o", path("run")}));

  const Outcome several = eval_several("several", {"--plan"}, "model");
  expect_one_line(several, kFailed, "default_qcfg.json");
  expect_one_line(eval_several("several", {}, "model"), kFailed, "default_qcfg.json");
  quantize();
  expect_success(eval_several("several", {"--plan"}));
  expect_success(eval({"-t", "piqa", "--plan", "-o", path("new")}));
  for (const char* made : {"several", "new"}) EXPECT_FALSE(fs::exists(path(made))) << made;
  expect_success(eval_several("several", {}));
  expect_one_line(eval_several("several", {"--limit", "1", "--plan"}), kFailed,
                  "several/float: holds results of a run with other settings: ");
}

}  // namespace
}  // namespace qeval::test
