#include "eval/results/results.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "tests/eval/result_fixture.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

TEST(Results, ReadBackAsWritten) {
  const TemporaryFolder folder;
  const RunResults run = example_run();
  write_results(folder.path() / "out", run);
  const RunResults back = read_results(folder.path() / "out");
  EXPECT_EQ(to_json(back).dump(), to_json(run).dump());
  ASSERT_EQ(back.tasks.size(), 3U);
  EXPECT_EQ(back.tasks[0].name, "zeta") << "the order of the request, not of the alphabet";
  EXPECT_EQ(back.tasks[0].counts, run.tasks[0].counts);
  EXPECT_EQ(back.bootstrap, run.bootstrap);
  EXPECT_EQ(back.tokens_computed(), 75);
  EXPECT_EQ(back.tokens_requested(), 252);
}

TEST(Results, SayWhetherBosWasAdded) {
  RunResults run = example_run();
  EXPECT_TRUE(to_json(run)["add_bos_token"].is_null());
  for (const char* told : {"true", "false", "always"}) {
    run.add_bos_token = told;
    EXPECT_EQ(run_results_from_json(to_json(run), "x").add_bos_token, told);
  }
  ordered_json json = to_json(run);
  json["add_bos_token"] = "yes";
  EXPECT_THROW(run_results_from_json(json, "x"), Error);
  json.erase("add_bos_token");
  EXPECT_EQ(run_results_from_json(json, "x").add_bos_token, "");
}

TEST(Results, FollowTheHarnessLayout) {
  const ordered_json json = to_json(example_run());
  EXPECT_EQ(json["results"]["zeta"]["acc,none"], 1.0);
  EXPECT_EQ(json["results"]["zeta"]["acc_stderr,none"], 0.0);
  EXPECT_EQ(json["results"]["zeta"]["sample_len"], 3);
  EXPECT_FALSE(json["results"]["alpha"].contains("acc_stderr,none")) << "one document";
  EXPECT_TRUE(json["results"]["pages"].contains("word_perplexity_stderr,none"));
  EXPECT_EQ(json["groups"]["both"]["acc,none"], json["results"]["both"]["acc,none"]);
  EXPECT_FALSE(json["groups"].contains("everything")) << "a mere list has no aggregate";
  EXPECT_EQ(json["group_subtasks"]["everything"], (ordered_json{"both", "pages"}));
  EXPECT_EQ(json["n-samples"]["zeta"].dump(), R"({"original":40,"effective":3})");
  EXPECT_EQ(json["n-shot"]["zeta"], 5);
  EXPECT_EQ(json["versions"]["zeta"], "1");
  EXPECT_EQ(json["higher_is_better"]["zeta"]["acc"], true);
  EXPECT_EQ(json["higher_is_better"]["pages"]["word_perplexity"], false);
  EXPECT_EQ(json["configs"]["zeta"]["metric_list"][0]["metric"], "acc");
}

TEST(Results, GroupsAggregateTheTasksBelowThem) {
  const RunResults run = example_run();
  const GroupResults* both = run.find_group("both");
  ASSERT_NE(both, nullptr);
  EXPECT_EQ(both->documents, 4);
  EXPECT_NEAR(both->find("acc")->value, 0.75, 1e-15);            // 3 right of 4 documents
  EXPECT_NEAR(both->find("acc_unweighted")->value, 0.5, 1e-15);  // mean of 1 and 0
  EXPECT_EQ(run.find_group("everything")->documents, 6);
  EXPECT_THROW(make_group_results(run, "g", {"absent"}, {"acc"}), Error);
  EXPECT_THROW(make_group_results(run, "g", {"pages"}, {"acc"}), Error);
}

TEST(Results, NumbersThatJsonLacksSurvive) {
  RunResults run = example_run();
  run.tasks[0].metrics = {{"acc", std::numeric_limits<double>::quiet_NaN(), {}},
                          {"perplexity", std::numeric_limits<double>::infinity(), {}}};
  const ordered_json json = ordered_json::parse(to_json(run).dump());
  EXPECT_TRUE(json["results"]["zeta"]["acc,none"].is_null());
  const RunResults back = run_results_from_json(json, "x");
  EXPECT_TRUE(std::isnan(back.tasks[0].find("acc")->value));
  EXPECT_TRUE(std::isinf(back.tasks[0].find("perplexity")->value));
}

/// Files from before the key was written, and files without such groups, have none.
TEST(Results, NameTheGroupsThatAnUnweightedMeanStandsFor) {
  RunResults run = example_run();
  ordered_json json = to_json(run);
  EXPECT_FALSE(json.contains("unweighted_groups"));
  EXPECT_TRUE(run_results_from_json(json, "x").find_group("both")->weighted);
  run.groups[0].weighted = false;
  json = to_json(run);
  EXPECT_EQ(json["unweighted_groups"], ordered_json::array({"both"}));
  const RunResults back = run_results_from_json(json, "x");
  EXPECT_FALSE(back.find_group("both")->weighted);
  EXPECT_TRUE(back.find_group("everything")->weighted);
  json["unweighted_groups"] = "both";
  EXPECT_THROW(run_results_from_json(json, "x"), Error);
}

TEST(Results, HarnessWritesNotApplicableWhereWeLeaveOut) {
  ordered_json json = to_json(example_run());
  json["results"]["zeta"]["acc_stderr,none"] = "N/A";
  EXPECT_FALSE(run_results_from_json(json, "x").tasks[0].metrics[0].standard_error);
}

TEST(Results, DamagedFilesAreErrorsThatNameTheField) {
  const ordered_json good = to_json(example_run());
  const auto error_of = [](const ordered_json& json) -> std::string {
    try {
      run_results_from_json(json, "dir/results.json");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  ASSERT_EQ(error_of(good), "");
  for (const auto& [key, value] : good.items()) {
    if (key == "add_bos_token") continue;  // files of earlier versions have none
    if (key == "groups" || key == "higher_is_better" || key == "model_name" || key == "content_hash")
      continue;
    if (key == "tokens_computed" || key == "tokens_requested") continue;  // sums over the tasks
    ordered_json json = good;
    json.erase(key);
    EXPECT_THAT(error_of(json), HasSubstr(key + " is missing")) << key;
    json = good;
    json[key] = ordered_json::array({1, "x", nullptr});
    EXPECT_THAT(error_of(json), HasSubstr("dir/results.json")) << key;
  }
  ordered_json json = good;
  json["tasks"]["zeta"]["tokens_scored"] = -5;
  EXPECT_THAT(error_of(json), HasSubstr("tokens_scored"));
  json = good;
  json["task_order"].push_back("zeta");
  EXPECT_THAT(error_of(json), HasSubstr("zeta"));
  json = good;
  json["config"]["bootstrap_iters"] = 1e12;
  EXPECT_NE(error_of(json), "");
  json = good;
  json["schema_version"] = 99;
  EXPECT_THAT(error_of(json), HasSubstr("99"));
}

// Found by reading: 8 groups that each held the others 8 times took 8⁸ steps, more took forever.
TEST(Results, GroupsThatContainEachOtherEndWithTheTasksBelowThem) {
  RunResults run = example_run();
  const std::vector<std::string> names(1000, "loop");
  run.groups.push_back({"loop", names, {}, 0});
  run.groups.back().members.push_back("zeta");
  EXPECT_EQ(make_group_results(run, "all", {"loop"}, {}).documents, 3);
}

// Found by reading: a sum of counts from a file overflowed, which C++ leaves undefined.
TEST(Results, CountsThatCannotBeAreErrors) {
  ordered_json json = to_json(example_run());
  json["tasks"]["zeta"]["tokens_scored"] = (int64_t{1} << 53) + 1;
  EXPECT_THROW(run_results_from_json(json, "x"), Error);
  RunResults run = example_run();
  run.tasks[0].tokens_computed = run.tasks[1].tokens_computed = int64_t{1} << 62;
  EXPECT_THROW((void)run.tokens_computed(), Error);
  std::vector<Scores> scores = scores_of(choice_samples(2));
  for (Scores& score : scores) score.answers[0].tokens = int64_t{1} << 62;
  EXPECT_THROW((void)make_task_results("x", scores, {}), Error);
}

// Found by reading: a task named in a file reached the terminal as it stood, escape sequences and all.
TEST(Results, NamesInMessagesAreFitForATerminal) {
  ordered_json json = to_json(example_run());
  json["task_order"].push_back("\x1b[2J");
  try {
    run_results_from_json(json, "x");
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("\\x1b[2J"));
  }
}

TEST(Results, FilesThatAreNotResultsAreErrorsThatNameTheFile) {
  const TemporaryFolder folder;
  EXPECT_THROW(read_results(folder.path()), Error);
  for (const char* content : {"", "{", "[]", "{}", "null", "\xff\xfe"}) {
    write_file_atomically(folder.path() / "results.json", content);
    try {
      read_results(folder.path());
      ADD_FAILURE() << "accepted: " << content;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("results.json"));
    }
  }
}

}  // namespace
}  // namespace qeval::eval
