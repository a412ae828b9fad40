#include "datasets/reader.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/hash.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::datasets {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

std::string jsonl_error(std::string text) {
  return message_of([&] { read_jsonl({"rows.jsonl", std::move(text)}); });
}

TEST(ReadJsonl, KeepsRowsAndTheirLines) {
  const Table table = read_jsonl({"rows.jsonl", "{\"a\": 1}\n\n  \t\n{\"a\": 2}"});
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(table.rows[0].line(), 1);
  EXPECT_EQ(table.rows[1].line(), 4);
  EXPECT_EQ(table.rows[1].integer("a"), 2);
  EXPECT_EQ(table.rows[1].file(), "rows.jsonl");
}

TEST(ReadJsonl, AcceptsByteOrderMarkAndCarriageReturns) {
  const std::string text = "\xEF\xBB\xBF{\"a\": \"x\"}\r\n\r\n{\"a\": \"y\"}\r\n";
  const Table table = read_jsonl({"rows.jsonl", text});
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(table.rows[0].text("a"), "x");
  EXPECT_EQ(table.rows[1].line(), 3);
}

TEST(ReadJsonl, HashesTheBytesOfTheFile) {
  const std::string text = "\xEF\xBB\xBF{}\r\n";
  const Table table = read_jsonl({"rows.jsonl", text});
  ASSERT_EQ(table.files.size(), 1U);
  EXPECT_EQ(table.files[0].path, "rows.jsonl");
  EXPECT_EQ(table.files[0].sha256, sha256_hex(text));
}

TEST(ReadJsonl, KeepsTheOrderOfFields) {
  const Table table = read_jsonl({"rows.jsonl", R"({"z": 1, "a": 2, "m": 3})"});
  EXPECT_EQ(table.rows[0].fields().dump(), R"({"z":1,"a":2,"m":3})");
}

TEST(ReadJsonl, ReadsALineOfAMegabyte) {
  const std::string longest(1 << 20, 'x');
  const Table table = read_jsonl({"rows.jsonl", "{\"a\": \"" + longest + "\"}\n"});
  EXPECT_EQ(table.rows[0].text("a"), longest);
}

TEST(ReadJsonl, RefusesALineOverTheLimit) {
  EXPECT_THAT(jsonl_error("{}\n{\"a\": \"" + std::string(kMaxLineBytes, 'x') + "\"}\n"),
              AllOf(StartsWith("rows.jsonl:2: a line of 16777"), HasSubstr("16777216 are accepted")));
}

TEST(ReadJsonl, RefusesMalformedUtf8NamingTheByte) {
  EXPECT_THAT(jsonl_error("{\"a\": \"\xC3\xA9\"}\n{\"a\": \"\xE9\"}\n"),
              StartsWith("rows.jsonl:2: byte 8 of the line (0xe9) is not UTF-8"));
  EXPECT_THAT(jsonl_error("{\"a\": \"\xC0\xAF\"}\n"), StartsWith("rows.jsonl:1: byte 8"));
}

TEST(ReadJsonl, RefusesWhatIsNoObject) {
  EXPECT_THAT(jsonl_error("{}\n[1]\n"), StartsWith("rows.jsonl:2: a list where a JSON object"));
  EXPECT_THAT(jsonl_error("{}\n{\"a\": }\n"), StartsWith("rows.jsonl:2: not JSON: syntax error"));
  EXPECT_THAT(jsonl_error("{\"a\": 1} {\"a\": 2}\n"), StartsWith("rows.jsonl:1: not JSON"));
  EXPECT_THAT(jsonl_error("{\"a\": \"\\ud800\"}\n"), StartsWith("rows.jsonl:1: not JSON"));
  EXPECT_THAT(jsonl_error("{\"a\": 1"), StartsWith("rows.jsonl:1: not JSON"));
  EXPECT_THAT(jsonl_error(" \n\n"), StartsWith("rows.jsonl: no rows"));
  EXPECT_THAT(jsonl_error(""), StartsWith("rows.jsonl: no rows"));
}

// Copying a JSON value recurses: a hostile row of a few hundred kilobytes would end the program.
TEST(ReadJsonl, RefusesDeepNesting) {
  const std::string deep = "{\"a\": " + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_THAT(jsonl_error(deep), StartsWith("rows.jsonl:1: nested deeper than 64 levels"));
  const std::string brackets_in_text =
      R"({"a": "\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["})";
  EXPECT_EQ(jsonl_error(brackets_in_text), "");
}

TEST(ReadJsonl, MessagesAreOneLineAndPrintable) {
  const std::string message = jsonl_error("{\"a\": \"line\x1B[31m\"}");
  EXPECT_NE(message, "");
  EXPECT_EQ(message.find_first_of("\n\x1B"), std::string::npos) << message;
}

TEST(ReadMmluCsv, GivesTheColumnsOfTheJsonlCopies) {
  const std::string text = "\"What is 2, \"\"two\"\",\r\nplus 2?\",1,2,3,4,D\r\n\r\nPlain,a,\"b, c\",,e,A";
  const Table table = read_mmlu_csv({"x_test.csv", text}, "arithmetic");
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(table.rows[0].fields(), Json::parse(R"({"question": "What is 2, \"two\",\r\nplus 2?",
      "subject": "arithmetic", "choices": ["1", "2", "3", "4"], "answer": 3})"));
  EXPECT_EQ(table.rows[1].line(), 4);
  EXPECT_THAT(table.rows[1].texts("choices"), ElementsAre("a", "b, c", "", "e"));
  EXPECT_EQ(table.rows[1].integer("answer"), 0);
  EXPECT_EQ(table.files[0].sha256, sha256_hex(text));
}

TEST(ReadMmluCsv, RefusesBadRecords) {
  const auto error = [](const std::string& text) {
    return message_of([&] { read_mmlu_csv({"x.csv", text}, "x"); });
  };
  EXPECT_THAT(error("q,a,b,c,d,A\nq,a,b,c,A\n"), StartsWith("x.csv:2: 5 columns where 6 are expected"));
  EXPECT_THAT(error("q,a,b,c,d,E\n"), StartsWith("x.csv:1: field \"answer\": \"E\" is none of A to D"));
  EXPECT_THAT(error("q,a,b,c,d,A\n\"q,a,b\n,c,d,A\n"), StartsWith("x.csv:2: a quote that is never closed"));
  EXPECT_THAT(error("\"q\"x,a,b,c,d,A\n"), StartsWith("x.csv:1: text behind a closing quote"));
  EXPECT_THAT(error("q,a,b,c,\xFF,A\n"), StartsWith("x.csv:1: byte 9 of the line (0xff) is not UTF-8"));
  EXPECT_THAT(error("\n\n"), StartsWith("x.csv: no rows"));
}

TEST(AttachLabels, GivesEachRowItsLabel) {
  Table table = read_jsonl({"valid.jsonl", "{\"goal\": \"a\"}\n{\"goal\": \"b\"}\n"});
  attach_labels(table, {"valid-labels.lst", "1\r\n0\r\n"});
  EXPECT_EQ(table.rows[0].integer("label"), 1);
  EXPECT_EQ(table.rows[1].integer("label"), 0);
  ASSERT_EQ(table.files.size(), 2U);
  EXPECT_EQ(table.files[1].path, "valid-labels.lst");
}

TEST(AttachLabels, CountsThem) {
  Table table = read_jsonl({"valid.jsonl", "{\"goal\": \"a\"}\n{\"goal\": \"b\"}\n"});
  EXPECT_EQ(message_of([&] {
              attach_labels(table, {"valid-labels.lst", "1\n"});
            }),
            "valid-labels.lst: 1 labels for the 2 rows of valid.jsonl");
}

TEST(ReadText, NamesAGitLfsPointer) {
  const test::TemporaryFolder folder;
  const auto path = folder.write("test.jsonl",
                                 "version https://git-lfs.github.com/spec/v1\noid sha256:"
                                 "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
                                 "size 12345\n");
  const std::string message = message_of([&] { read_text(path); });
  EXPECT_THAT(message, testing::StartsWith(path.string() + ": a Git LFS pointer"));
  EXPECT_THAT(message, testing::HasSubstr("git lfs pull"));
}

}  // namespace
}  // namespace qeval::datasets
