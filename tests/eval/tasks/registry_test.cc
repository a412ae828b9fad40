#include "eval/tasks/registry.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

template <typename Named>
std::vector<std::string> names_of(const std::vector<Named>& all) {
  std::vector<std::string> out;
  for (const Named& one : all) out.push_back(one.name);
  return out;
}

std::string selection_error(const std::string& selection) {
  return message_of([&] { resolve_tasks(selection); });
}

TEST(Registry, EntriesAreComplete) {
  std::set<std::string> names;
  for (const Protocol protocol : {Protocol::lm_eval_0_4, Protocol::lm_eval_0_3}) {
    names.clear();
    for (const Task& task : builtin_tasks(protocol)) {
      EXPECT_TRUE(names.insert(task.name).second) << task.name;
      EXPECT_TRUE(task.ask) << task.name;
      EXPECT_FALSE(task.metrics.empty()) << task.name;
      EXPECT_FALSE(task.description.empty()) << task.name;
      EXPECT_FALSE(task.split.empty()) << task.name;
    }
    for (const Group& group : builtin_groups(protocol)) {
      EXPECT_TRUE(names.insert(group.name).second) << group.name;
      for (const std::string& task : group.tasks) EXPECT_EQ(names.count(task), 1U) << task;
    }
  }
  // MMLU has three forms; BIG-Bench Hard four of 27 tasks and the leaderboard's 24, MATH three of 7.
  EXPECT_EQ(names.size(), 19U + 3 * 57U + 22U + 2U + 4 * 27U + 24U + 3 * 7U + 2U + 7U + 33U);
}

TEST(Registry, AGroupMayBringItsNumbersOfExamples) {
  const Selection selection = resolve_tasks("openllm");
  std::map<std::string, int64_t> examples;
  for (const Task& task : selection.tasks) examples[task.name] = task.num_fewshot;
  EXPECT_EQ(examples.size(), 6U + 57U);
  EXPECT_EQ(examples["arc_challenge"], 25);
  EXPECT_EQ(examples["hellaswag"], 10);
  EXPECT_EQ(examples["truthfulqa_mc2"], 0);
  EXPECT_EQ(examples["mmlu_anatomy"], 5);
  EXPECT_EQ(examples["gsm8k"], 5);
  EXPECT_EQ(resolve_tasks("arc_challenge").tasks[0].num_fewshot, 0);
  EXPECT_EQ(resolve_tasks("leaderboard").tasks.size(), 24U + 3U + 3U + 7U + 2U);
}

TEST(Registry, WildcardsPassOverOtherForms) {
  EXPECT_EQ(resolve_tasks("mmlu_a*").tasks.size(), 3U);  // of subjects, in their usual form
  EXPECT_EQ(resolve_tasks("mmlu_a*_continuation").tasks.size(), 3U);
  EXPECT_EQ(resolve_tasks("bbh_zeroshot_*").tasks.size(), 27U);
}

TEST(Registry, ReadsListsInOrderAndOnce) {
  const Selection selection = resolve_tasks(" piqa,arc_easy , piqa,");
  EXPECT_THAT(names_of(selection.tasks), ElementsAre("piqa", "arc_easy"));
  EXPECT_THAT(selection.groups, IsEmpty());
}

TEST(Registry, MmluBringsItsAreas) {
  const Selection selection = resolve_tasks("mmlu");
  EXPECT_EQ(selection.tasks.size(), 57U);
  EXPECT_THAT(names_of(selection.groups),
              ElementsAre("mmlu", "mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other"));
  const std::vector<size_t> sizes = {57, 19, 13, 12, 13};
  for (size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(selection.groups[i].tasks.size(), sizes[i]);
    EXPECT_THAT(selection.groups[i].metrics, ElementsAre("acc"));
    EXPECT_TRUE(selection.groups[i].weighted);
  }
  EXPECT_FALSE(resolve_tasks("mmlu", Protocol::lm_eval_0_3).groups[0].weighted);
}

TEST(Registry, OneAreaAlone) {
  const Selection selection = resolve_tasks("mmlu_other");
  EXPECT_EQ(selection.tasks.size(), 13U);
  EXPECT_THAT(names_of(selection.groups), ElementsAre("mmlu_other"));
}

TEST(Registry, PaperAndCommonsense) {
  const Selection paper = resolve_tasks("paper");
  EXPECT_EQ(paper.tasks.size(), 60U);
  EXPECT_EQ(paper.tasks[0].name, "wikitext");
  EXPECT_THAT(names_of(paper.groups), testing::IsSupersetOf({"paper", "mmlu", "mmlu_stem"}));
  EXPECT_THAT(names_of(paper.groups), Not(testing::Contains("commonsense")));
  EXPECT_THAT(
      names_of(resolve_tasks("commonsense").tasks),
      ElementsAre("arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "boolq", "openbookqa"));
}

TEST(Registry, WildcardsCoverTasks) {
  const Selection selection = resolve_tasks("mmlu_*");
  EXPECT_EQ(selection.tasks.size(), 57U);
  EXPECT_THAT(selection.groups, IsEmpty());
  EXPECT_THAT(names_of(resolve_tasks("arc_*").tasks), ElementsAre("arc_easy", "arc_challenge"));
  EXPECT_THAT(names_of(resolve_tasks("*_ea?y").tasks), ElementsAre("arc_easy"));
  EXPECT_THAT(names_of(resolve_tasks("truthfulqa_mc?").tasks),
              ElementsAre("truthfulqa_mc1", "truthfulqa_mc2"));
  // What costs a thousand times as much is not caught by the way.
  EXPECT_EQ(resolve_tasks("mmlu_pro_*").tasks.size(), 14U);
  EXPECT_THAT(names_of(resolve_tasks("gsm8k*").tasks),
              ElementsAre("gsm8k", "gsm8k_cot", "gsm8k_cot_zeroshot", "gsm8k_cot_llama"));
  EXPECT_THAT(selection_error("nothing_*"), HasSubstr("no task matches \"nothing_*\""));
  EXPECT_THAT(selection_error("arc_*y?"), HasSubstr("no task matches"));
}

TEST(Registry, UnknownNamesListTheNearOnes) {
  EXPECT_THAT(selection_error("arc_esy"),
              AllOf(HasSubstr("unknown task \"arc_esy\""), HasSubstr("near names: arc_easy;")));
  EXPECT_THAT(selection_error("winogrand"), HasSubstr("winogrande"));
  EXPECT_THAT(selection_error("truthfulqa"), AllOf(HasSubstr("truthfulqa_mc1"), HasSubstr("truthfulqa_mc2")));
  EXPECT_THAT(selection_error("zzzzzzzzzz"), Not(HasSubstr("near names")));
  EXPECT_THAT(selection_error(std::string(100000, 'a')), HasSubstr("unknown task"));
  EXPECT_THAT(selection_error(" , "), HasSubstr("no task named"));
  EXPECT_THAT(selection_error(""), HasSubstr("no task named"));
}

}  // namespace
}  // namespace qeval::eval
