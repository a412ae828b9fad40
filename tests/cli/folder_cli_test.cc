// Folders of results belong to one piece of work: what would mix or overwrite it is refused, and says why.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace qeval::test {
namespace {

using testing::HasSubstr;

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
};

/// A resumed run printed the scores of the old answers, and shards with different ones were merged.
TEST_F(FolderCli, ATaskWithOtherRightAnswersIsAnotherTask) {
  write_task("first");
  expect_success(eval_task({"-o", path("out")}));
  expect_success(eval_task({"--shard", "1/2", "-o", path("s1")}));
  write_task("second");
  expect_one_line(eval_task({"-o", path("out"), "--resume"}), kFailed, "other settings: answers mine (");
  expect_success(eval_task({"--shard", "2/2", "-o", path("s2")}));
  expect_one_line(run({"merge", path("s1"), path("s2"), "-o", path("merged")}), kFailed, "answers mine (");
}

}  // namespace
}  // namespace qeval::test
