// What goes wrong outside the program: full disks, files that shrink, no memory, signals, a second run,
// clocks. Whatever happens, there is one line that says what to do, and nothing finished is lost: the same
// command with
// --resume leaves the bytes of a run that nothing happened to.

#include <csignal>
#include <filesystem>
#include <random>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/directory_lock.h"
#include "base/file.h"
#include "cli_fixture.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;

constexpr int kRefused = 77;  // the script could not set up what it needs

class FaultCli : public Cli {
 protected:
  /// So many questions that a run of them can be disturbed.
  FaultCli() {
    std::string rows;
    for (int i = 0; i < kQuestions; ++i) {
      rows += fmt::format(
          R"({{"goal": "Mend thing number {}", "sol1": "Use glue number {}.", "sol2": "Wait {} days.", "label": {}}})"
          "\n",
          i, i * 7, i % 9, i % 2);
    }
    write("data/piqa/validation.jsonl", rows);
  }

  std::string command(const std::string& more) const {
    return fmt::format("{} eval -m {} -d {} -t {} --batch-tokens 256 {}", QEVAL_BINARY, path("model"),
                       path("data"), task_, more);
  }
  /// A script in the user's folder.
  Running start(const std::string& script) const {
    return start_program(path(""), {"sh", "-c", fmt::format("cd {} && {}", path(""), script)});
  }
  Outcome shell(const std::string& script) const { return wait_for(start(script)); }

  std::string samples(const std::string& folder) const { return folder + "/samples_" + task_ + ".jsonl"; }
  /// The samples of a run that nothing happened to.
  const std::string& unbroken() {
    if (unbroken_.empty()) {
      expect_success(shell(command("-o unbroken")));
      unbroken_ = read(samples("unbroken"));
    }
    return unbroken_;
  }
  /// Continues what lies in the folder and compares.
  void expect_resumes(const std::string& folder) {
    expect_success(shell(command("--resume -o " + folder)));
    EXPECT_EQ(read(samples(folder)), unbroken());
    expect_success(run({"verify", path(folder)}));
  }
  /// Waits until the run has finished documents of so many bytes.
  void wait_for_journal(const Running& running, const std::string& folder, uintmax_t bytes) const {
    std::error_code code;
    while (::kill(running.process, 0) == 0) {
      const auto size = fs::file_size(path(folder + "/journal_" + task_ + ".jsonl"), code);
      if ((!code && size >= bytes) || fs::exists(path(folder + "/results.json"), code)) return;
      int state = 0;
      if (::waitid(P_PID, static_cast<id_t>(running.process), nullptr, WEXITED | WNOHANG | WNOWAIT) != 0)
        return;
      (void)state;
      std::this_thread::yield();
    }
  }

  static constexpr int kQuestions = 1500;
  std::string task_ = "piqa";

 private:
  std::string unbroken_;
};

TEST_F(FaultCli, AFileThatMayNotGrowLosesNothing) {
  for (const int blocks : {1, 16, 100, 500}) {  // of 512 bytes: into the journal, or the samples file
    SCOPED_TRACE(blocks);
    const std::string folder = fmt::format("f{}", blocks);
    const Outcome outcome = shell(fmt::format("ulimit -f {} && exec {}", blocks, command("-o " + folder)));
    expect_one_line(outcome, kFailed, "cannot write: File too large");
    expect_resumes(folder);
  }
}

TEST_F(FaultCli, AFullDiskLosesNothing) {
  const Outcome outcome = shell(fmt::format(
      "mkdir small; unshare -m sh -c 'mount -t tmpfs -o size=200k none small || exit {0}; {1} 2> first; "
      "test $? = 1 || exit 3; mount -o remount,size=100m small && {2} && cp -r small/out out'",
      kRefused, command("-o small/out"), command("--resume -o small/out")));
  if (outcome.status == kRefused || outcome.status == 1 || outcome.status == 127)
    GTEST_SKIP() << "no tmpfs of its own: " << outcome.error;
  EXPECT_EQ(outcome.status, 0) << outcome.error << read("first");
  EXPECT_THAT(read("first"), MatchesRegex("qeval: [^\n]*cannot write: No space left on device\n"));
  EXPECT_EQ(read("out/samples_piqa.jsonl"), unbroken());
}

TEST_F(FaultCli, AFullStandardOutputIsNoSuccess) {
  expect_one_line(shell(command("--limit 2 > /dev/full")), kFailed, "standard output: cannot write");
  expect_one_line(run({"convert", "-m", path("model"), "-o", "/dev/full/x"}), kFailed, "/dev/full");
}

TEST_F(FaultCli, AFolderThatMayNotBeWrittenIsRefusedAtOnce) {
  if (::geteuid() == 0) {  // whom permissions do not bind
    const Outcome outcome =
        shell(fmt::format("mkdir fixed; unshare -m sh -c 'mount -t tmpfs -o ro none fixed || exit {}; {}'",
                          kRefused, command("-o fixed/out")));
    if (outcome.status == kRefused || outcome.status == 127) GTEST_SKIP() << outcome.error;
    expect_one_line(outcome, kFailed, "cannot create the folder: Read-only file system");
  } else {
    fs::create_directory(path("fixed"));
    fs::permissions(path("fixed"), fs::perms::owner_read | fs::perms::owner_exec);
    expect_one_line(shell(command("-o fixed/out")), kFailed, "cannot create the folder: Permission denied");
    expect_one_line(shell(command("-o fixed")), kFailed, "cannot write into the directory");
    fs::permissions(path("fixed"), fs::perms::owner_all);
  }
}

TEST_F(FaultCli, AModelThatIsShortenedWhileItIsReadEndsTheRunWithALine) {
  const std::string weights = read("model/model.safetensors");
  (void)unbroken();
  const Running running = start("exec " + command("-o out"));
  wait_for_journal(running, "out", 10'000);
  fs::resize_file(path("model/model.safetensors"), 0);
  const Outcome outcome = wait_for(running);
  expect_one_line(outcome, kFailed, path("model/model.safetensors") + ": was shortened while it was read");
  EXPECT_THAT(outcome.error, HasSubstr("finished documents are kept"));
  write("model/model.safetensors", weights);
  EXPECT_GT(fs::file_size(path("out/journal_piqa.jsonl")), 10'000U);
  expect_resumes("out");
}

TEST_F(FaultCli, MemoryThatRunsOutEndsInALine) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers reserve terabytes of addresses, which `ulimit -v` refuses";
#endif
  int good = 0, bad = 0;
  for (int step = 0, megabytes = 16; megabytes <= 2048; ++step, megabytes += megabytes / 8) {
    const int threads = 1 + step % 2;
    SCOPED_TRACE(fmt::format("{} MB, {} threads", megabytes, threads));
    const std::string limited = fmt::format("ulimit -c 0; ulimit -v {} && exec ", megabytes * 1024);
    // What the loader and the libraries need before the program begins is not ours to report.
    if (shell(limited + fmt::format("{} --version", QEVAL_BINARY)).status != 0) continue;
    const Outcome outcome = shell(limited + command(fmt::format("--limit 200 --threads {}", threads)));
    EXPECT_THAT(outcome.status, AnyOf(0, kFailed)) << outcome.error;
    if (outcome.status == 0) {
      ++good;
    } else {
      ++bad;
      EXPECT_THAT(outcome.error, MatchesRegex("qeval: [^\n]*(memory|map|thread)[^\n]*\n"));
    }
  }
  EXPECT_GT(good, 0);
  EXPECT_GT(bad, 0);
}

TEST_F(FaultCli, SignalsAtRandomMomentsLoseNothing) {
  (void)unbroken();
  std::minstd_rand random(7);
  int interrupted = 0;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGKILL}) {
    for (int round = 0; round < 3; ++round) {
      const std::string folder = fmt::format("s{}-{}", signal, round);
      SCOPED_TRACE(folder);
      const Running running = start("exec " + command("-o " + folder));
      wait_for_journal(running, folder, 1 + random() % (unbroken().size() / 2));
      ::kill(running.process, signal);
      const Outcome outcome = wait_for(running);
      if (outcome.status == kFailed) {
        ++interrupted;
        expect_one_line(outcome, kFailed, "documents finished; the same command with --resume continues");
      } else {  // it was faster, or could not hear it
        EXPECT_THAT(outcome.status, AnyOf(0, 128 + SIGHUP, 128 + SIGKILL));
      }
      expect_resumes(folder);
    }
  }
  EXPECT_GT(interrupted, 0);
}

TEST_F(FaultCli, TextsKilledAtTenMomentsAreTheSameTexts) {
  task_ = "squad_completion";
  std::string rows;
  for (int i = 0; i < 150; ++i)
    rows += fmt::format(R"({{"text": "Thing number {} of {} is", "value": "e"}})"
                        "\n",
                        i * 7, i % 4);
  write("data/squad_completion/validation.jsonl", rows);
  (void)unbroken();
  std::minstd_rand random(11);
  int killed = 0;
  for (int round = 0; killed < 10 && round < 40; ++round) {
    const std::string folder = fmt::format("k{}", round);
    SCOPED_TRACE(folder);
    const Running running = start("exec " + command("-o " + folder));
    wait_for_journal(running, folder, 1 + random() % unbroken().size());
    ::kill(running.process, SIGKILL);
    killed += wait_for(running).status == 128 + SIGKILL ? 1 : 0;
    expect_resumes(folder);
  }
  EXPECT_EQ(killed, 10);
}

TEST_F(FaultCli, ASecondRunIntoTheFolderIsToldWhoIsThere) {
  (void)unbroken();
  const Running running = start("exec " + command("-o out"));
  wait_for_journal(running, "out", 1);
  const Outcome second = shell(command("--resume -o out"));
  ::kill(running.process, SIGKILL);
  wait_for(running);
  expect_one_line(second, kFailed, fmt::format("out: in use by process {} on ", running.process));
  EXPECT_THAT(second.error,
              MatchesRegex(".* since 20[0-9-]+ [0-9:]+ [^ ]+: wait for it to end or choose.*\n"));
  expect_resumes("out");  // the dead one holds nothing
}

TEST_F(FaultCli, EveryCommandThatFillsAFolderLocksIt) {
  write("text.txt", std::string(400, 'y') + " and some words\n");
  const std::string who = fmt::format("in use by process {} on ", ::getpid());
  fs::create_directory(path("held"));
  {
    const DirectoryLock lock(path("held"));
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
             {"eval", "-m", path("model"), "-t", "sample", "-o", path("held")},
             {"quantize", "-m", path("model"), "--calibration", path("text.txt"), "--samples", "1",
              "--sequence-length", "16", "-o", path("held")},
             {"compare", "-m", path("model"), "-t", "sample", "--methods", "rtn", "--schemes", "w8a8",
              "--samples", "1", "--calibration", path("text.txt"), "--sequence-length", "16", "-o",
              path("held")},
             {"convert", "-m", path("model"), "-o", path("held")}}) {
      const Outcome outcome = run(words);
      EXPECT_EQ(outcome.status, kFailed) << words.front();
      EXPECT_THAT(outcome.error, HasSubstr(who)) << words.front();
    }
  }
  EXPECT_THAT(fs::directory_iterator(path("held")), fs::directory_iterator());
}

TEST_F(FaultCli, AWallClockThatJumpsChangesNoDuration) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers want to be loaded first";
#endif
  const std::string jumps = fmt::format("LD_PRELOAD={} ", QEVAL_CLOCK_JUMPS);
  expect_success(shell(jumps + command("-o out --limit 20")));
  const auto results = nlohmann::json::parse(read("out/results.json"));
  EXPECT_GE(results["seconds"].get<double>(), 0);
  EXPECT_LT(results["seconds"].get<double>(), 3600);
  const Outcome bench =
      shell(jumps +
            fmt::format("{} bench -m model --schemes fp,w8a8 --repeat 1 --warmup 0 -o b.json", QEVAL_BINARY));
  EXPECT_EQ(bench.status, 0) << bench.error;
  EXPECT_THAT(bench.output, testing::Not(testing::ContainsRegex("[ (]-[0-9.]")));
  const Outcome generated =
      shell(jumps + fmt::format("{} generate -m model -p ab -n 4 --ignore-eos --stats", QEVAL_BINARY));
  EXPECT_EQ(generated.status, 0) << generated.error;
  EXPECT_THAT(generated.error, testing::Not(testing::ContainsRegex("[ (]-[0-9.]")));
}

}  // namespace
}  // namespace qeval::test
