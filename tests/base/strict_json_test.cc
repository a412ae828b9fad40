#include "base/strict_json.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/message_of.h"

namespace qeval {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::StartsWith;

std::string strict_error(const std::string& text) {
  return message_of([&] { parse_strict_json(text, "x.json", 3); });
}
std::string ordered_error(const std::string& text) {
  return message_of([&] { parse_ordered_json(text, "x.json", 3); });
}

TEST(StrictJson, GivesWhatTheLibraryGives) {
  for (const char* text : {"null", "true", "-3", "18446744073709551615", "0.1", "-0.0", "1e300",
                           "\"\\u00e9\\ud83d\\ude00\"", "[]", "{}", "[[],{},[[1,\"a\",null]],2]",
                           R"({"b":{"c":[{"d":1},{"d":2}],"a":false},"a":"x","":[0]})"}) {
    EXPECT_EQ(parse_strict_json(text, "x"), json::parse(text)) << text;
    EXPECT_EQ(parse_ordered_json(text, "x").dump(), ordered_json::parse(text).dump()) << text;
  }
}

TEST(StrictJson, NamesAKeyThatOccursTwice) {
  for (const auto& error_of : {strict_error, ordered_error}) {
    EXPECT_EQ(error_of(R"({"a":1,"b":2,"a":1})"), "x.json: key \"a\" occurs twice in one object");
    EXPECT_THAT(error_of(R"([{"b":{"a":1,"\u0061":null}}])"), HasSubstr("key \"a\" occurs twice"));
    EXPECT_THAT(error_of(R"({"b":{"c":0},"a":[{}],"b":1})"), HasSubstr("key \"b\" occurs twice"));
    EXPECT_THAT(error_of(R"({"\u001b[1m":1,"\u001b[1m":1})"), HasSubstr("key \"\\x1b[1m\" occurs"));
    EXPECT_EQ(error_of(R"([{"a":{"a":1}},{"a":2}])"), "");
    std::string many = "{\"0\":0";  // where the search changes
    for (int i = 1; i < 100; ++i) many += fmt::format(",\"{}\":0", i);
    EXPECT_EQ(error_of(many + "}"), "");
    for (const char* key : {"0", "31", "32", "33", "99"})
      EXPECT_THAT(error_of(many + ",\"" + key + "\":1}"),
                  HasSubstr(std::string("\"") + key + "\" occurs twice"));
  }
}

TEST(StrictJson, LimitsNesting) {
  for (const auto& error_of : {strict_error, ordered_error}) {
    EXPECT_EQ(error_of(R"({"a":[{"b":1}]})"), "");
    EXPECT_EQ(error_of(R"([[["[[[["]],[[]]])"), "");
    EXPECT_EQ(error_of(R"({"a":[{"b":[]}]})"), "x.json: nested deeper than 3 levels");
    EXPECT_EQ(error_of(std::string(1'000'000, '[')), "x.json: nested deeper than 3 levels");
  }
}

TEST(StrictJson, SaysWhyATextIsNotJson) {
  for (const auto& error_of : {strict_error, ordered_error}) {
    for (const char* text : {"", "{", "[1,]", "{\"a\":1}x", "1e999", "\"\xff\"", "\"\\ud800\"", "nul"})
      EXPECT_THAT(error_of(text), StartsWith("x.json: not JSON: ")) << text;
    EXPECT_THAT(error_of("[1,]"), StartsWith("x.json: not JSON: syntax error"));
  }
}

// Its objects are searched from the beginning: reading each of a million members would take hours.
TEST(StrictJson, LimitsTheKeysOfAnOrderedObject) {
  std::string text = "{\"0\":0";
  for (int i = 1; i < 100'000; ++i) text += fmt::format(",\"{}\":0", i);
  EXPECT_EQ(ordered_error(text + "}"), "");
  EXPECT_EQ(ordered_error(text + ",\"x\":0}"), "x.json: an object of more than 100000 keys");
  EXPECT_EQ(strict_error(text + ",\"x\":0}"), "");
}

}  // namespace
}  // namespace qeval
