#include "datasets/row.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/message_of.h"

namespace qeval::datasets {
namespace {

using testing::ElementsAre;

Row row_of(const char* json) {
  return {Json::parse(json), std::make_shared<const std::string>("data/x.jsonl"), 7};
}

TEST(Row, FindsFieldsByPath) {
  const Row row = row_of(R"({"a": {"b": ["x", {"c": "deep"}]}, "n": null})");
  EXPECT_EQ(row.text("a.b.0"), "x");
  EXPECT_EQ(row.text("a.b.1.c"), "deep");
  EXPECT_TRUE(row.has("n"));
  EXPECT_FALSE(row.has("a.b.2"));
  EXPECT_FALSE(row.has("a.b.x"));
  EXPECT_FALSE(row.has("a.b.0.c"));
  EXPECT_FALSE(row.has("a.b.-1"));
}

TEST(Row, NamesFileLineAndField) {
  const Row row = row_of(R"({"a": 1, "list": [], "mixed": ["x", 2]})");
  EXPECT_EQ(message_of([&] { (void)row.text("q"); }), "data/x.jsonl:7: field \"q\": missing");
  EXPECT_EQ(message_of([&] { (void)row.text("a"); }),
            "data/x.jsonl:7: field \"a\": a number where a string is expected");
  EXPECT_EQ(message_of([&] { (void)row.texts("list"); }),
            "data/x.jsonl:7: field \"list\": an empty list where at least one string is expected");
  EXPECT_EQ(message_of([&] { (void)row.texts("mixed"); }),
            "data/x.jsonl:7: field \"mixed\": item 1 is a number where a string is expected");
  EXPECT_EQ(message_of([&] { (void)row.texts("a"); }),
            "data/x.jsonl:7: field \"a\": a number where a list of strings is expected");
}

TEST(Row, ReadsListsOfBothShapes) {
  const Row columns = row_of(R"({"choices": {"text": ["x", "y"]}})");
  const Row objects = row_of(R"({"choices": [{"text": "x"}, {"text": "y"}]})");
  EXPECT_THAT(columns.texts("choices.text"), ElementsAre("x", "y"));
  EXPECT_THAT(objects.texts("choices.text"), ElementsAre("x", "y"));
  const Row broken = row_of(R"({"choices": [{"text": "x"}, {"txt": "y"}]})");
  EXPECT_EQ(message_of([&] { (void)broken.texts("choices.text"); }),
            "data/x.jsonl:7: field \"choices.text\": missing in item 1 of the list");
}

TEST(Row, ReadsNumbersInEverySpelling) {
  const Row row =
      row_of(R"({"n": 3, "s": "2", "b": true, "f": 1.5, "w": "two", "e": "", "big": 18446744073709551615})");
  EXPECT_EQ(row.integer("n"), 3);
  EXPECT_EQ(row.integer("s"), 2);
  EXPECT_EQ(row.integer("b"), 1);
  for (const char* field : {"f", "w", "e", "big"})
    EXPECT_NE(message_of([&] { (void)row.integer(field); }), "") << field;
}

TEST(Row, ChecksTheRangeOfAnIndex) {
  const Row row = row_of(R"({"zero": 0, "one": 1, "four": "4", "minus": -1, "least": -9223372036854775808})");
  EXPECT_EQ(row.index("zero", 4), 0);
  EXPECT_EQ(row.index("one", 4, 1), 0);
  EXPECT_EQ(row.index("four", 4, 1), 3);
  EXPECT_EQ(message_of([&] { (void)row.index("four", 4); }),
            "data/x.jsonl:7: field \"four\": 4 is none of 0 to 3");
  EXPECT_EQ(message_of([&] { (void)row.index("zero", 3, 1); }),
            "data/x.jsonl:7: field \"zero\": 0 is none of 1 to 3");
  EXPECT_NE(message_of([&] { (void)row.index("minus", 4); }), "");
  EXPECT_NE(message_of([&] { (void)row.index("least", 4, 1); }), "");
}

}  // namespace
}  // namespace qeval::datasets
