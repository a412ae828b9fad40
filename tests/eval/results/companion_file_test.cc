#include "eval/results/companion_file.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "eval/results/divergence.h"
#include "eval/results/run_directory.h"
#include "tests/eval/result_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const Fingerprint companion_settings{{"weights", "a"}};

std::vector<CompanionFormat> formats() {
  return {divergence_format({{"arc", {"w", "float", "", "s"}}}, 256)};
}

std::string record(int64_t id) {
  return divergence_line({id, "00", {static_cast<float>(id)}, {0.5F}, {}}) + "\n";
}

/// Finishes the four documents that are not finished yet, in an odd order.
void work(RunDirectory& run) {
  for (const int64_t id : {2, 0, 3, 1}) {
    if (!run.is_finished("arc", id)) run.append("arc", choice_sample(id), std::vector{record(id)});
  }
}

std::string companion_error(const fs::path& folder) {
  return message_of([&] {
    RunDirectory run(folder, companion_settings, {"arc"}, true, formats());
    work(run);
    run.finish("arc");
  });
}

void write(const fs::path& path, std::string_view text) {
  std::ofstream(path) << text;
}

TEST(CompanionFile, CutAnywhereItResumesToTheSameBytes) {
  const TemporaryFolder whole;
  std::string unfinished, journal;
  {
    RunDirectory run(whole.path(), companion_settings, {"arc"}, false, formats());
    work(run);
    unfinished = read_file(whole.path() / "unfinished_divergence_arc.jsonl");
    journal = read_file(whole.path() / "journal_arc.jsonl");
    run.finish("arc");
  }
  const std::string expected = read_file(whole.path() / "divergence_arc.jsonl");
  EXPECT_EQ(read_divergence(whole.path() / "divergence_arc.jsonl", "arc").documents.size(), 4U);
  EXPECT_FALSE(fs::exists(whole.path() / "unfinished_divergence_arc.jsonl"));

  // The record of a document is there before its sample is: cut to n samples and somewhere behind n records.
  std::vector<size_t> records, samples{0};
  for (size_t i = 0; i < unfinished.size(); ++i) {
    if (unfinished[i] == '\n') records.push_back(i + 1);
  }
  for (size_t i = 0; i < journal.size(); ++i) {
    if (journal[i] == '\n') samples.push_back(i + 1);
  }
  ASSERT_EQ(records.size(), 5U);  // with the header
  for (size_t n = 0; n <= 4; ++n) {
    for (size_t length = n == 0 ? 0 : records[n]; length <= unfinished.size(); length += 41) {
      const TemporaryFolder folder;
      fs::copy_file(whole.path() / "run.json", folder.path() / "run.json");
      write(folder.path() / "unfinished_divergence_arc.jsonl", unfinished.substr(0, length));
      if (n > 0) write(folder.path() / "journal_arc.jsonl", journal.substr(0, samples[n]));
      ASSERT_EQ(companion_error(folder.path()), "") << n << " samples, " << length << " bytes";
      ASSERT_EQ(read_file(folder.path() / "divergence_arc.jsonl"), expected);
      ASSERT_EQ(read_file(folder.path() / "samples_arc.jsonl"),
                read_file(whole.path() / "samples_arc.jsonl"));
      ASSERT_FALSE(fs::exists(folder.path() / "unfinished_divergence_arc.jsonl"));
      ASSERT_EQ(companion_error(folder.path()), "");  // and once more with everything there
      ASSERT_EQ(read_file(folder.path() / "divergence_arc.jsonl"), expected);
    }
  }
}

TEST(CompanionFile, ASampleWithoutItsRecordIsDamage) {
  const TemporaryFolder folder;
  {
    RunDirectory run(folder.path(), companion_settings, {"arc"}, false, formats());
    work(run);
  }
  const fs::path file = folder.path() / "unfinished_divergence_arc.jsonl";
  const std::string text = read_file(file);
  fs::remove(file);
  EXPECT_THAT(companion_error(folder.path()), HasSubstr("has a sample but no record"));
  write(file, "something else\n");
  EXPECT_THAT(companion_error(folder.path()), HasSubstr("does not begin as this run's would"));
  std::string edited = text;
  edited[edited.size() / 2] ^= 1;
  write(file, edited);
  EXPECT_NE(companion_error(folder.path()), "");
}

TEST(CompanionFile, ANewRunRemovesTheOldRecords) {
  const TemporaryFolder folder;
  EXPECT_EQ(companion_error(folder.path()), "");
  write(folder.path() / "results.json", "{}");
  RunDirectory run(folder.path(), companion_settings, {"arc"}, false, formats());
  EXPECT_FALSE(fs::exists(folder.path() / "divergence_arc.jsonl"));
}

}  // namespace
}  // namespace qeval::eval
