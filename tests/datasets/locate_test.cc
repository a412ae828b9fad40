#include "datasets/locate.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "datasets/sample.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::datasets {
namespace {

using test::TemporaryFolder;
using testing::EndsWith;
using testing::StartsWith;

const std::vector<std::string> kPatterns = {"set/{split}.jsonl", "set/Set-{Split}.jsonl"};

TEST(LocateSplit, TakesTheFirstPatternThatIsThere) {
  const TemporaryFolder folder;
  const auto original = folder.write("set/Set-Test.jsonl", "{}");
  EXPECT_EQ(locate_split(folder.path(), kPatterns, "test", false), original);
  const auto copy = folder.write("set/test.jsonl", "{}");
  EXPECT_EQ(locate_split(folder.path(), kPatterns, "test", false), copy);
}

TEST(LocateSplit, KnowsOtherNamesOfValidation) {
  const TemporaryFolder folder;
  const auto dev = folder.write("set/dev.jsonl", "{}");
  EXPECT_EQ(locate_split(folder.path(), kPatterns, "validation", false), dev);
  EXPECT_THROW(locate_split(folder.path(), kPatterns, "validation", true), Error);
  const auto valid = folder.write("set/valid.jsonl", "{}");
  EXPECT_EQ(locate_split(folder.path(), kPatterns, "validation", false), valid);
}

TEST(LocateSplit, NamesThePathAndTheSplitThatIsThere) {
  const TemporaryFolder folder;
  const std::string tried = (folder.path() / "set/test.jsonl").string();
  const auto find = [&] {
    return message_of([&] { locate_split(folder.path(), kPatterns, "test", false); });
  };
  EXPECT_EQ(find(), tried +
                        ": not found; -d names the folder above those of the tasks, which "
                        "scripts/fetch_datasets.py fills (docs/data.md)");
  const auto other = folder.write("set/validation.jsonl", "{}");
  EXPECT_EQ(find(), tried + ": not found; split validation would read " + other.string());
}

TEST(LocateLabels, LiesBesideTheRows) {
  const TemporaryFolder folder;
  const auto rows = folder.write("set/valid.jsonl", "{}");
  EXPECT_TRUE(locate_labels(rows).empty());
  const auto labels = folder.write("set/valid-labels.lst", "0");
  EXPECT_EQ(locate_labels(rows), labels);
}

TEST(ShippedSample, IsInsideTheProgram) {
  const std::vector<std::string> patterns = {"sample_qa/{split}.jsonl"};
  const DataText data = shipped_sample(patterns, "test");
  EXPECT_THAT(data.name, EndsWith("(shipped)"));
  EXPECT_EQ(read_jsonl(data).rows.size(), 34U);
  EXPECT_THAT(
      message_of([&] { shipped_sample(patterns, "validation"); }),
      StartsWith("sample_qa/validation.jsonl (shipped): there is no such split; accepted: test, train"));
}

}  // namespace
}  // namespace qeval::datasets
