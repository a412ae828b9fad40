// What several processes of a run leave when they are killed, and who takes it over.
#include "eval/distributed/merge.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "eval/distributed/shard_record.h"
#include "eval/results/run_directory.h"
#include "eval/results/sample_file.h"
#include "tests/eval/result_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const Fingerprint merged_settings{{"arithmetic", "float"}, {"weights", "abc"}};
const std::vector<std::string> merged_tasks{"arc", "pages"};

/// A companion whose records are lines "ID TEXT".
const CompanionFormat lines{
    "divergence", ".jsonl", [](std::string_view task) { return std::string(task) + "\n"; },
    [](std::string_view bytes, const std::string&, const std::function<void(int64_t, uint64_t)>& visit) {
      uint64_t read = 0;
      for (size_t end = 0; (end = bytes.find('\n', read)) != std::string_view::npos; read = end + 1)
        visit(std::stoll(std::string(bytes.substr(read))), end + 1 - read);
      return read;
    }};

void add(RunDirectory& run, const Sample& sample) {
  const std::vector<std::string> records{fmt::format("{} of arc\n", sample.scores.doc_id)};
  run.append("arc", sample, records);
}

TEST(RankFolders, AreTakenOverByWhoeverResumes) {
  const TemporaryFolder folder, whole;
  const auto samples = choice_samples(7);
  {
    RunDirectory first(folder.path(), merged_settings, merged_tasks, false, {lines});
    RunDirectory second(rank_folder(folder.path(), 1), merged_settings, merged_tasks, true, {lines});
    RunDirectory third(rank_folder(folder.path(), 12), merged_settings, merged_tasks, true, {lines});
    add(second, samples[6]);
    add(first, samples[2]);
    add(second, samples[0]);
    add(third, samples[4]);
  }
  std::ofstream(rank_folder(folder.path(), 12) / journal_file("arc"), std::ios::app) << "half a li";
  fs::create_directories(rank_folder(folder.path(), 3));  // killed before it had written anything
  EXPECT_THAT(message_of([&] { RunDirectory(folder.path(), merged_settings, merged_tasks, false, {lines}); }),
              HasSubstr("continue it with resume"));
  RunDirectory resumed(folder.path(), merged_settings, merged_tasks, true, {lines});
  for (const int64_t id : {0, 2, 4, 6}) EXPECT_TRUE(resumed.is_finished("arc", id)) << id;
  EXPECT_EQ(resumed.finished_documents("arc"), 4);
  for (const int rank : {1, 3, 12}) EXPECT_FALSE(fs::exists(rank_folder(folder.path(), rank)));
  for (const size_t i : {5, 1, 3}) add(resumed, samples[i]);
  const std::string hash = resumed.finish("arc").samples_hash;

  RunDirectory unbroken(whole.path(), merged_settings, merged_tasks, false, {lines});
  for (const Sample& sample : samples) add(unbroken, sample);
  EXPECT_EQ(unbroken.finish("arc").samples_hash, hash);
  for (const std::string file : {"samples_arc.jsonl", "divergence_arc.jsonl"})
    EXPECT_EQ(read_file(folder.path() / file), read_file(whole.path() / file)) << file;
}

TEST(RankFolders, ADocumentThatTwoOfThemHaveIsTakenOnce) {
  // Killed while a rank's work was taken over: it stands in the journal already.
  const TemporaryFolder folder;
  const auto samples = choice_samples(2);
  {
    RunDirectory first(folder.path(), merged_settings, merged_tasks, false, {lines});
    RunDirectory second(rank_folder(folder.path(), 1), merged_settings, merged_tasks, true, {lines});
    add(first, samples[0]);
    add(second, samples[0]);
    add(second, samples[1]);
  }
  RunDirectory resumed(folder.path(), merged_settings, merged_tasks, true, {lines});
  EXPECT_EQ(resumed.finished_documents("arc"), 2);
}

TEST(RankFolders, OfAnotherRunOrInUseAreRefused) {
  const TemporaryFolder folder;
  const auto samples = choice_samples(1);
  RunDirectory first(folder.path(), merged_settings, merged_tasks, false, {lines});
  {
    RunDirectory second(rank_folder(folder.path(), 1), merged_settings, merged_tasks, true, {lines});
    add(second, samples[0]);
    EXPECT_THAT(message_of([&] { first.absorb_ranks(); }), HasSubstr("in use by"));
  }
  Fingerprint other = merged_settings;
  other["arithmetic"] = "fake";
  {
    RunDirectory foreign(rank_folder(folder.path(), 2), other, merged_tasks, true, {lines});
    add(foreign, samples[0]);
  }
  EXPECT_THAT(message_of([&] { first.absorb_ranks(); }), HasSubstr("arithmetic (fake there, float here)"));
}

/// Every file and folder below, by its name.
std::vector<fs::path> everything_in(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) out.push_back(entry.path());
  std::ranges::sort(out);
  return out;
}

TEST(ShardRecord, NamesOfTasksStayInTheFolder) {
  const TemporaryFolder folder;
  const fs::path shard = folder.path() / "in/shard";
  fs::create_directories(shard);
  std::ofstream(folder.path() / "in/samples_x.jsonl") << "";
  for (const std::string name : {"/../../samples_x", "../x", "a/b"}) {
    ShardRecord record;
    record.shard = {1, 1};
    record.fingerprint = merged_settings;
    record.run = example_run();
    record.run.groups.clear();
    record.run.tasks.resize(1);
    record.run.tasks[0].name = name;
    record.documents[name] = 0;
    write_shard_record(shard, record);
    const std::vector<fs::path> before = everything_in(folder.path());
    const std::vector<fs::path> shards{shard};
    EXPECT_THAT(message_of([&] { merge_shards(shards, folder.path() / "out", ""); }),
                HasSubstr("cannot be part of a file name"));
    EXPECT_EQ(everything_in(folder.path()), before);
  }
}

}  // namespace
}  // namespace qeval::eval
