#include "eval/results/protocol_difference.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/eval/result_fixture.h"

namespace qeval::eval {
namespace {

TEST(ProtocolDifference, IsTheFirstRuleThatDiffers) {
  const RunResults run = example_run();
  EXPECT_FALSE(protocol_difference(run, run));
  const auto differs = [&](const std::function<void(RunResults&)>& change) {
    RunResults other = run;
    change(other);
    const auto found = protocol_difference(run, other);
    return found ? found->what + " " + found->first + " " + found->second : "";
  };
  EXPECT_EQ(differs([](RunResults& other) { other.protocol = "lm-eval-0.3"; }),
            "protocol lm-eval-0.4 lm-eval-0.3");
  EXPECT_EQ(differs([](RunResults& other) { other.prefix_policy = "eos"; }), "prefix token bos eos");
  EXPECT_EQ(differs([](RunResults& other) { other.add_bos_token = "true"; }),
            "add_bos_token as the tokenizer has it true");
  EXPECT_THAT(differs([](RunResults& other) { other.chat.system_instruction = "Be brief."; }),
              testing::StartsWith("system_instruction none "));
  EXPECT_THAT(differs([](RunResults& other) { other.chat.chat_template = "{{ messages }}"; }),
              testing::StartsWith("chat_template none "));
  EXPECT_EQ(differs([](RunResults& other) { other.max_length = 64; }), "maximum length 2048 64");
  EXPECT_EQ(differs([](RunResults& other) { other.tasks[1].version = "2"; }), "alpha version 1 2");
  EXPECT_EQ(differs([](RunResults& other) { other.tasks[1].split = "dev"; }), "alpha split test dev");
  EXPECT_EQ(differs([](RunResults& other) { other.tasks[0].num_fewshot = 0; }), "zeta few-shot 5 0");
  const auto generating = [](const char* settings) {
    RunResults out = example_run();
    out.tasks[0].config["generation_kwargs"] = nlohmann::ordered_json::parse(settings);
    return out;
  };
  const RunResults greedy = generating(R"({"max_gen_toks": 100, "repeats": 1})");
  const auto found = protocol_difference(greedy, generating(R"({"max_gen_toks": 20, "repeats": 1})"));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->what + " " + found->first + " " + found->second, "zeta max_gen_toks 100 20");
  const auto drawn =
      protocol_difference(greedy, generating(R"({"repeats": 1, "max_gen_toks": 100, "temperature": 0.5})"));
  ASSERT_TRUE(drawn);
  EXPECT_EQ(drawn->what + " " + drawn->first + " " + drawn->second, "zeta temperature none 0.5");
  EXPECT_FALSE(protocol_difference(greedy, generating(R"({"repeats": 1, "max_gen_toks": 100})")));
  EXPECT_FALSE(protocol_difference(greedy, run));  // of before settings were recorded
  // A task that one of them lacks is no difference, nor is what does not change what a score means.
  EXPECT_EQ(differs([](RunResults& other) { other.tasks.pop_back(); }), "");
  EXPECT_EQ(differs([](RunResults& other) { other.model.arithmetic = "fake"; }), "");
}

}  // namespace
}  // namespace qeval::eval
