#include "eval/results/run_directory.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "eval/results/sample_file.h"
#include "eval/results/statistics.h"
#include "tests/eval/result_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const Fingerprint settings{{"arithmetic", "float"}, {"weights", sha256_hex("weights")}, {"limit", ""}};
const std::vector<std::string> tasks{"arc", "pages"};

std::string open_error(const fs::path& path, bool resume, const Fingerprint& fingerprint = settings) {
  return message_of([&] { RunDirectory(path, fingerprint, tasks, resume); });
}

void append_raw(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::app) << text;
}

/// The files an uninterrupted run leaves.
std::string expected_samples(int64_t documents) {
  std::string text;
  for (const Sample& sample : choice_samples(documents)) text += to_line(sample) + "\n";
  return text;
}

TEST(RunDirectory, SortsWhatFinishedInAnyOrder) {
  const TemporaryFolder folder;
  RunDirectory run(folder.path() / "new" / "out", settings, tasks, false);
  const auto samples = choice_samples(4);
  for (const size_t i : {2, 0, 3, 1}) run.append("arc", samples[i]);
  EXPECT_TRUE(run.is_finished("arc", 3));
  EXPECT_FALSE(run.is_finished("arc", 4));
  EXPECT_FALSE(run.is_finished("pages", 3));
  EXPECT_EQ(message_of([&] { run.append("arc", samples[1]); }).find("finished before") == std::string::npos,
            false);
  const auto finished = run.finish("arc");
  EXPECT_EQ(read_file(run.path() / "samples_arc.jsonl"), expected_samples(4));
  EXPECT_EQ(finished.samples_hash, sha256_hex(expected_samples(4)));
  ASSERT_EQ(finished.scores.size(), 4U);
  EXPECT_EQ(finished.scores[3].doc_id, 3);
  EXPECT_FALSE(fs::exists(run.path() / "journal_arc.jsonl"));
}

TEST(RunDirectory, AJournalCutAnywhereResumesToTheSameBytes) {
  const auto samples = choice_samples(3);
  const TemporaryFolder whole;
  {
    RunDirectory run(whole.path(), settings, tasks, false);
    for (const size_t i : {1, 2, 0}) run.append("arc", samples[i]);
  }
  const std::string journal = read_file(whole.path() / "journal_arc.jsonl");
  std::vector<size_t> ends;
  for (size_t i = 0; i < journal.size(); ++i) {
    if (journal[i] == '\n') ends.push_back(i + 1);
  }
  ASSERT_EQ(ends.size(), 3U);
  for (size_t length = 0; length <= journal.size(); length += length + 2 < journal.size() ? 29 : 1) {
    const TemporaryFolder folder;
    fs::copy_file(whole.path() / "run.json", folder.path() / "run.json");
    append_raw(folder.path() / "journal_arc.jsonl", journal.substr(0, length));
    RunDirectory run(folder.path(), settings, tasks, true);
    ASSERT_EQ(run.finished_documents("arc"),
              std::ranges::count_if(ends, [&](size_t end) { return end <= length; }));
    for (const Sample& sample : samples) {
      if (!run.is_finished("arc", sample.scores.doc_id)) run.append("arc", sample);
    }
    run.finish("arc");
    ASSERT_EQ(read_file(folder.path() / "samples_arc.jsonl"), expected_samples(3)) << "cut after " << length;
  }
}

TEST(RunDirectory, SurvivesSigkillAtAnyMoment) {
  constexpr int64_t documents = 60;
  Random random(20);
  const auto samples = choice_samples(documents);
  for (int round = 0; round < 20; ++round) {
    const TemporaryFolder folder;
    for (int kills = 0; kills < 3; ++kills) {
      // The child tells of every document through a pipe; it is killed after some of them, wherever it then
      // is.
      int ends[2];
      ASSERT_EQ(::pipe(ends), 0);
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        ::close(ends[0]);
        try {
          RunDirectory run(folder.path(), settings, tasks, kills > 0);
          run.compute_with(kills > 0 ? "avx2" : "portable");
          for (const Sample& sample : samples) {
            if (run.is_finished("arc", sample.scores.doc_id)) continue;
            run.append("arc", sample);
            if (::write(ends[1], "x", 1) != 1) ::_exit(1);
          }
          run.finish("arc");
        } catch (const std::exception&) {
          ::_exit(1);
        }
        ::_exit(0);
      }
      ::close(ends[1]);
      char signal = 0;
      for (uint64_t told = random.below(25) + 1; told > 0 && ::read(ends[0], &signal, 1) == 1;) --told;
      ::kill(child, SIGKILL);
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ::close(ends[0]);
      ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << "the child failed by itself";
    }
    RunDirectory run(folder.path(), settings, tasks, true);
    EXPECT_TRUE(run.cpu_paths().contains("portable")) << "computed something before it was killed first";
    for (const Sample& sample : samples) {
      if (!run.is_finished("arc", sample.scores.doc_id)) run.append("arc", sample);
    }
    const auto finished = run.finish("arc");
    ASSERT_EQ(read_file(folder.path() / "samples_arc.jsonl"), expected_samples(documents));
    ASSERT_EQ(finished.scores.size(), static_cast<size_t>(documents));
  }
}

/// A run that was resumed on another machine named the last kernels only.
TEST(RunDirectory, RemembersWhatKernelsComputedItsDocuments) {
  const TemporaryFolder folder;
  const auto samples = choice_samples(3);
  const auto open = [&](const std::string& cpu_path, bool resume) {
    auto run = std::make_unique<RunDirectory>(folder.path(), settings, tasks, resume);
    run->compute_with(cpu_path);
    return run;
  };
  open("avx2", false)->append("arc", samples[0]);
  EXPECT_THAT(open("avx512", true)->cpu_paths(), testing::ElementsAre("avx2")) << "it computed nothing";
  open("portable", true)->append("arc", samples[1]);
  EXPECT_THAT(read_run_record(folder.path())->cpu_paths, testing::ElementsAre("avx2", "portable"));
  const TemporaryFolder other;
  RunDirectory merged(other.path(), settings, tasks, true);
  merged.absorb(folder.path());
  EXPECT_THAT(read_run_record(other.path())->cpu_paths, testing::ElementsAre("avx2", "portable"));
  open("avx2", true)->finish("arc");
  write_results(folder.path(), example_run());
  open("avx512", false)->append("arc", samples[0]);
  EXPECT_THAT(read_run_record(folder.path())->cpu_paths, testing::ElementsAre("avx512")) << "done again";
}

TEST(RunDirectory, SamplesAndJournalTogetherAreOneRun) {
  // Killed after the samples were written, before the journal was removed; then more documents.
  const TemporaryFolder folder;
  const auto samples = choice_samples(3);
  std::string journal;
  {
    RunDirectory run(folder.path(), settings, tasks, false);
    run.append("arc", samples[2]);
    journal = read_file(folder.path() / "journal_arc.jsonl");
    run.finish("arc");
  }
  append_raw(folder.path() / "journal_arc.jsonl", journal + to_line(samples[0]) + "\n");
  append_raw(folder.path() / "samples_arc.jsonl.tmp77", "half");
  append_raw(folder.path() / "samples_note.tmpx", "not ours");
  RunDirectory run(folder.path(), settings, tasks, true);
  EXPECT_EQ(run.finished_documents("arc"), 2);
  run.append("arc", samples[1]);
  EXPECT_EQ(run.finish("arc").scores.size(), 3U);
  EXPECT_EQ(read_file(folder.path() / "samples_arc.jsonl"), expected_samples(3));
  EXPECT_FALSE(fs::exists(folder.path() / "samples_arc.jsonl.tmp77"));
  EXPECT_TRUE(fs::exists(folder.path() / "samples_note.tmpx"));
}

TEST(RunDirectory, DamageIsNamedByFileAndLine) {
  const TemporaryFolder folder;
  {
    RunDirectory run(folder.path(), settings, tasks, false);
    for (const Sample& sample : choice_samples(3)) run.append("arc", sample);
  }
  const fs::path journal = folder.path() / "journal_arc.jsonl";
  const std::string good = read_file(journal);
  std::string damaged = good;
  damaged[good.find('\n') + 40] ^= 0x10;
  write_file_atomically(journal, damaged);
  EXPECT_THAT(open_error(folder.path(), true),
              AllOf(HasSubstr("journal_arc.jsonl:2: "), HasSubstr("checksum")));
  write_file_atomically(journal, good + good.substr(0, good.find('\n') + 1));
  EXPECT_THAT(open_error(folder.path(), true), AllOf(HasSubstr("journal_arc.jsonl:4: "), HasSubstr("twice")));
  write_file_atomically(journal, good);
  EXPECT_EQ(open_error(folder.path(), true), "");
  fs::rename(journal, folder.path() / "samples_arc.jsonl");
  write_file_atomically(folder.path() / "samples_arc.jsonl", good.substr(0, good.size() - 1));
  EXPECT_THAT(open_error(folder.path(), true),
              AllOf(HasSubstr("samples_arc.jsonl:3: "), HasSubstr("incomplete")));
  write_file_atomically(folder.path() / "run.json", "{\"fingerprint\": 3}");
  EXPECT_THAT(open_error(folder.path(), true), HasSubstr("run.json"));
}

TEST(RunDirectory, RefusesToResumeOtherSettingsNamingThem) {
  const TemporaryFolder folder;
  {
    RunDirectory run(folder.path(), settings, tasks, false);
    run.append("arc", choice_sample(0));
  }
  Fingerprint changed = settings;
  changed["arithmetic"] = "fake";
  changed["weights"] = sha256_hex("other weights");
  changed.erase("limit");
  changed["ranges"] = "act_dict.json";
  const std::string message = open_error(folder.path(), true, changed);
  EXPECT_THAT(message, AllOf(HasSubstr("arithmetic (float there, fake here)"),
                             HasSubstr("limit (none there, absent here)"),
                             HasSubstr("ranges (absent there, act_dict.json here)")));
  EXPECT_THAT(message, HasSubstr("weights (" + sha256_hex("weights").substr(0, 12) + "… there, " +
                                 sha256_hex("other weights").substr(0, 12) + "… here)"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_THAT(message_of([&] { RunDirectory(folder.path(), settings, {"arc"}, true); }),
              HasSubstr("tasks (arc,pages there, arc here)"));
  EXPECT_EQ(open_error(folder.path(), true), "") << "the refusals must have changed nothing";
  EXPECT_EQ(RunDirectory(folder.path(), settings, tasks, true).finished_documents("arc"), 1);
}

TEST(RunDirectory, WithoutResumeOnlyAFinishedRunOfTheSameSettingsIsDoneAgain) {
  const TemporaryFolder folder;
  EXPECT_EQ(open_error(folder.path(), false), "");
  EXPECT_EQ(open_error(folder.path(), false), "") << "nothing was finished: nothing to lose";
  EXPECT_EQ(open_error(folder.path(), true), "") << "resuming nothing begins";
  {
    RunDirectory run(folder.path(), settings, tasks, false);
    run.append("arc", choice_sample(0));
  }
  EXPECT_THAT(open_error(folder.path(), false), HasSubstr("resume"));
  RunDirectory(folder.path(), settings, tasks, true).finish("arc");
  EXPECT_THAT(open_error(folder.path(), false), HasSubstr("resume")) << "samples, but no results.json yet";
  write_results(folder.path(), example_run());
  EXPECT_THAT(open_error(folder.path(), false, {{"arithmetic", "fake"}}), HasSubstr("arithmetic"));
  {
    const RunDirectory run(folder.path(), settings, tasks, true);
    EXPECT_TRUE(run.is_finished("arc", 0)) << "resuming a finished run leaves nothing to do";
  }
  const RunDirectory run(folder.path(), settings, tasks, false);
  EXPECT_FALSE(run.is_finished("arc", 0));
  EXPECT_FALSE(fs::exists(folder.path() / "results.json"));
  EXPECT_FALSE(fs::exists(folder.path() / "samples_arc.jsonl"));
}

TEST(RunDirectory, LeavesResultsOfOthersAlone) {
  for (const char* file : {"results.json", "samples_arc.jsonl"}) {
    const TemporaryFolder folder;
    append_raw(folder.path() / file, "{}");
    for (const bool resume : {false, true})
      EXPECT_THAT(open_error(folder.path(), resume), HasSubstr("another directory"));
    EXPECT_EQ(read_file(folder.path() / file), "{}");
  }
}

TEST(RunDirectory, IsHeldByOneProcessAtATime) {
  const TemporaryFolder folder;
  {
    const RunDirectory run(folder.path(), settings, tasks, false);
    EXPECT_THAT(open_error(folder.path(), true), HasSubstr("process " + std::to_string(::getpid()) + " on "));
  }
  EXPECT_EQ(open_error(folder.path(), true), "");
  append_raw(folder.path() / ".lock", "left by a process that was killed");
  EXPECT_EQ(open_error(folder.path(), true), "");
  EXPECT_FALSE(fs::exists(folder.path() / ".lock"));
}

TEST(RunDirectory, AFolderThatCannotBeWrittenIsAnError) {
  const TemporaryFolder folder;
  append_raw(folder.path() / "file", "");
  EXPECT_THAT(open_error(folder.path() / "file", false), HasSubstr("file"));
  EXPECT_THAT(open_error("/proc/nowhere", false), HasSubstr("/proc/nowhere"));
}

TEST(SampleFile, TaskNamesMustBeFileNames) {
  EXPECT_EQ(samples_file("mmlu_anatomy"), "samples_mmlu_anatomy.jsonl");
  for (const std::string name : {"", "../x", "a\nb", "\xff"}) EXPECT_THROW(samples_file(name), Error);
  EXPECT_THROW(journal_file(std::string(201, 'x')), Error);
}

TEST(SampleFile, OrderIsChecked) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "samples_x.jsonl";
  append_raw(path, to_line(choice_sample(1)) + "\n" + to_line(choice_sample(0)) + "\n");
  EXPECT_EQ(read_samples(path).size(), 2U);
  EXPECT_THAT(message_of([&] { read_scores(path); }), HasSubstr("samples_x.jsonl:2"));
}

}  // namespace
}  // namespace qeval::eval
