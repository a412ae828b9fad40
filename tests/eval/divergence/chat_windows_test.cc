#include "eval/divergence/chat_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "datasets/reader.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

using testing::HasSubstr;

constexpr const char* kTemplate =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}|\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

std::vector<AssistantTurn> turns(const std::string& lines, const std::string& source = kTemplate) {
  ChatRenderer renderer({.where = "chat.jinja", .source = source, .special_tokens = {}, .warnings = {}},
                        nlohmann::ordered_json::object());
  return assistant_turns(renderer, datasets::read_jsonl({"talk.jsonl", lines}));
}

const std::string kTalk = R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},)"
                          R"({"role":"user","content":"c"},{"role":"assistant","content":"d"}]})"
                          "\n"
                          R"({"messages":[{"role":"assistant","content":"first"}]})"
                          "\n";

TEST(AssistantTurns, EachHasTheConversationBeforeIt) {
  const auto found = turns(kTalk);
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].prompt, "<user>a|\n<assistant>");
  EXPECT_EQ(found[0].answer, "b|\n");
  EXPECT_EQ(found[1].prompt, "<user>a|\n<assistant>b|\n<user>c|\n<assistant>");
  EXPECT_EQ(found[1].answer, "d|\n");
  EXPECT_EQ(found[2].prompt, "<assistant>");
  EXPECT_EQ(found[2].where, "talk.jsonl:2: message 1");
}

TEST(AssistantTurns, ErrorsNameTheLine) {
  const auto error = [](const std::string& line, const std::string& source = kTemplate) {
    return message_of([&] { turns(line, source); });
  };
  EXPECT_THAT(error(R"({"text":"x"})"), HasSubstr("talk.jsonl:1: field \"messages\""));
  EXPECT_THAT(error(R"({"messages":"x"})"), HasSubstr("is no list of messages"));
  EXPECT_THAT(error(R"({"messages":[{"role":"user","content":"x"}]})"),
              HasSubstr("no turn of the role assistant"));
  EXPECT_THAT(error(R"({"messages":[{"content":"x"}]})"), HasSubstr("messages.0.role"));
  EXPECT_THAT(
      error(kTalk, "{{ messages | length }}{% if add_generation_prompt %}?{% endif %}"),
      HasSubstr("talk.jsonl:1: message 2: the chat template writes what precedes this answer otherwise"));
  EXPECT_THAT(error(kTalk, "{{ raise_exception('no') }}"), HasSubstr("chat.jinja"));
}

}  // namespace
}  // namespace qeval::eval
