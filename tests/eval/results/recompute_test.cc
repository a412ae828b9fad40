#include "eval/results/recompute.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "eval/results/run_directory.h"
#include "eval/results/sample_file.h"
#include "eval/results/table.h"
#include "tests/eval/result_fixture.h"

namespace qeval::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

/// A finished run of the example: samples files and results.json.
RunResults write_example(const std::filesystem::path& directory) {
  RunResults run = example_run();
  RunDirectory files(directory, {{"arithmetic", "float"}}, {"zeta", "alpha", "pages"}, false);
  for (const Sample& sample : choice_samples(3)) files.append("zeta", sample);
  Sample wrong = choice_sample(0);
  wrong.scores.facts.gold = {1};
  files.append("alpha", wrong);
  files.append("pages", rolling_sample(1, -90, 20, 70, 40));
  files.append("pages", rolling_sample(0, -30, 10, 50, 20));
  for (TaskResults& task : run.tasks) task.samples_hash = files.finish(task.name).samples_hash;
  write_results(directory, run);
  return run;
}

/// Replaces text in a line of the file and makes the line's checksum right again, as a forger would.
void forge(const std::filesystem::path& path, const std::string& from, const std::string& to) {
  std::string text = read_file(path);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  const size_t begin = text.rfind('\n', at) == std::string::npos ? 0 : text.rfind('\n', at) + 1;
  const size_t tail = text.find(",\"checksum\"", at);
  text.replace(tail + 13, 16, sha256_hex(text.substr(begin, tail - begin)).substr(0, 16));
  write_file_atomically(path, text);
}

TEST(Recompute, AFinishedRunAgreesWithItself) {
  const TemporaryFolder folder;
  const RunResults run = write_example(folder.path());
  const Recomputed result = recompute(folder.path());
  EXPECT_THAT(result.differences, IsEmpty());
  EXPECT_EQ(result.documents, 6);
  EXPECT_EQ(to_json(result.derived).dump(), to_json(run).dump());
}

TEST(Recompute, KeepsWhichMeanStandsForAGroup) {
  const TemporaryFolder folder;
  RunResults run = write_example(folder.path());
  run.groups[0].weighted = false;
  write_results(folder.path(), run);
  const Recomputed result = recompute(folder.path());
  EXPECT_THAT(result.differences, IsEmpty());
  EXPECT_EQ(to_json(result.derived).dump(), to_json(run).dump());
}

TEST(Recompute, AnEditedResultIsNamed) {
  const TemporaryFolder folder;
  RunResults run = write_example(folder.path());
  run.tasks[0].metrics[0].value = 0.9;
  run.tasks[2].metrics[0].standard_error = *run.tasks[2].metrics[0].standard_error * (1 + 1e-9);
  run.groups[0].metrics[0].value = 0.8;
  run.tasks[1].counts.tokens_scored += 1;
  write_results(folder.path(), run);
  EXPECT_THAT(recompute(folder.path()).differences,
              UnorderedElementsAre(HasSubstr("zeta acc: results.json holds 0.9, the samples give 1"),
                                   HasSubstr("pages word_perplexity standard error"), HasSubstr("both acc: "),
                                   HasSubstr("alpha: the counts")));
}

TEST(Recompute, AnEditedSampleIsNamed) {
  const TemporaryFolder folder;
  write_example(folder.path());
  forge(folder.path() / "samples_zeta.jsonl", "\"acc\":1.0", "\"acc\":0.0");
  EXPECT_THAT(
      recompute(folder.path()).differences,
      ElementsAre(HasSubstr("samples_zeta.jsonl:1: field \"acc\" is 0.0, the rest of the line gives 1.0"),
                  HasSubstr("samples_zeta.jsonl: its SHA-256")));
  forge(folder.path() / "samples_alpha.jsonl", "\"gold\":[1]", "\"gold\":[2]");
  EXPECT_THAT(recompute(folder.path()).differences,
              testing::Contains(HasSubstr("alpha acc: results.json holds 0, ")));
}

TEST(Recompute, DamagedAndMissingFilesAreErrors) {
  const TemporaryFolder folder;
  write_example(folder.path());
  const auto path = folder.path() / "samples_zeta.jsonl";
  std::string text = read_file(path);
  const std::string good = text;
  text[text.find('\n') + 100] ^= 1;
  write_file_atomically(path, text);
  try {
    recompute(folder.path());
    ADD_FAILURE() << "a flipped bit went unnoticed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("samples_zeta.jsonl:2: "));
  }
  write_file_atomically(path, good.substr(0, good.find('\n') + 1));  // whole lines are gone
  EXPECT_THAT(recompute(folder.path()).differences, testing::Contains(HasSubstr("zeta: the counts")));
  std::filesystem::remove(path);
  EXPECT_THROW(recompute(folder.path()), Error);
}

TEST(Recompute, TheHarnessReadsOurFiles) {
  const TemporaryFolder folder;
  write_example(folder.path());
  const auto script = std::filesystem::path(QEVAL_TESTS_DIR) / "python/check_lm_eval_table.py";
  const char* python = std::getenv("QEVAL_PYTHON");  // one that has lm_eval, if the first on the path has not
  const auto log = folder.path() / "log";
  const std::string command =
      fmt::format("'{}' '{}' '{}' > '{}' 2>&1", python == nullptr ? "python3" : python, script.string(),
                  folder.path().string(), log.string());
  const int status = std::system(command.c_str());
  const std::string text = read_file(log);
  if (text.starts_with("skip") || text.find("not found") != std::string::npos) GTEST_SKIP() << text;
  EXPECT_EQ(status, 0) << text;
  EXPECT_THAT(text, HasSubstr("3 tasks, 6 documents"));
}

TEST(Table, ShowsTasksThenGroups) {
  EXPECT_EQ("\n" + render_table(example_run()), R"(
task   n-shot  metric                value     stderr  documents
─────  ──────  ──────────────────  ───────  ─────────  ─────────
zeta        5  acc ↑                1.0000   ± 0.0000          3
               acc_norm ↑           0.0000   ± 0.0000
alpha       0  acc ↑                0.0000                     1
               acc_norm ↑           0.0000
pages       0  word_perplexity ↓   54.5982  ± 24.4124          2
               byte_perplexity ↓    2.7183   ± 0.6265
               bits_per_byte ↓      1.4427   ± 0.3468
               token_perplexity ↓   7.3891   ± 1.7544
both           acc ↑                0.7500   ± 0.0000          4
               acc_unweighted ↑     0.5000
)");
}

TEST(Table, HostileNamesAndNumbersStayOnTheirLine) {
  RunResults run = example_run();
  run.groups.clear();
  run.tasks.resize(1);
  run.tasks[0].name = std::string(300, 'x') + "\n\x1b[31m\xff";
  run.tasks[0].metrics = {
      {"acc", std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()},
      {"word_perplexity", 123456.789, {}}};
  const std::string table = render_table(run);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 4);
  EXPECT_THAT(table, HasSubstr("nan"));
  EXPECT_THAT(table, HasSubstr("± inf"));
  EXPECT_THAT(table, HasSubstr("1.235e+05"));
  EXPECT_EQ(table.find('\x1b'), std::string::npos);
  EXPECT_NE(render_table(RunResults{}), "");
}

}  // namespace
}  // namespace qeval::eval
