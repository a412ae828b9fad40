#include "eval/engine/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ChatTemplates : public ::testing::Test {
 protected:
  void write(std::string_view name, std::string_view text) const { folder.write(name, text); }
  std::string prompt(std::string_view name = {}) const {
    ChatRequest request;
    request.messages = {{{"role", "user"}, {"content", "Hi"}}};
    return chat_prompt(load_chat_template(folder.path(), name), request);
  }
  test::TemporaryFolder folder;
};

TEST_F(ChatTemplates, AreTakenFromTheirFileBeforeTheConfiguration) {
  write("tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": {"content": "</s>"},
      "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ unk_token }}"})");
  EXPECT_EQ(prompt(), "<s>Hi</s>");
  write("chat_template.jinja", "{% if add_generation_prompt %}file{% endif %}");
  EXPECT_EQ(prompt(), "file");
  EXPECT_THAT(load_chat_template(folder.path(), "other").warnings, ElementsAre(HasSubstr("has no name")));
}

TEST_F(ChatTemplates, AreChosenByName) {
  write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(prompt(), "d");
  EXPECT_EQ(prompt("tool_use"), "t");
  EXPECT_THAT(message_of([&] { prompt("rag"); }), HasSubstr("rag; accepted: default, tool_use"));
  write("tokenizer_config.json", R"({"chat_template": [{"name": "a", "template": "d"}]})");
  EXPECT_THAT(message_of([&] { prompt(); }), HasSubstr("accepted: a"));
  write("chat_template.jinja", "file");
  write("additional_chat_templates/rag.jinja", "r");
  EXPECT_EQ(prompt(), "file");
  EXPECT_EQ(prompt("rag"), "r");
}

TEST_F(ChatTemplates, ThatAreMissingOrRaiseAreNamed) {
  EXPECT_THAT(message_of([&] { prompt(); }), HasSubstr("has no chat template"));
  write("chat_template.jinja", "a\n{{ raise_exception('no ' ~ messages[0].role) }}");
  EXPECT_THAT(message_of([&] { prompt(); }), HasSubstr("chat_template.jinja, line 2: no user"));
  write("chat_template.jinja", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  EXPECT_THAT(message_of([&] { prompt(); }), HasSubstr("Git LFS pointer"));
}

TEST_F(ChatTemplates, AnswersEndWhereTheModelSaysSo) {
  EXPECT_TRUE(answer_ends(folder.path()).empty());
  write("generation_config.json", R"({"eos_token_id": [1, 106]})");
  EXPECT_THAT(answer_ends(folder.path()), ElementsAre(1, 106));
  write("generation_config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(answer_ends(folder.path()), ElementsAre(7));
  write("generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THROW(answer_ends(folder.path()), Error);
}

}  // namespace
}  // namespace qeval::eval
