#include "eval/results/comparison.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "eval/results/comparison_file.h"
#include "eval/results/comparison_table.h"
#include "eval/results/headline.h"
#include "eval/results/model_details.h"
#include "eval/results/sample_file.h"
#include "eval/tasks/registry.h"
#include "tests/eval/result_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Right answers in the first `right` of `count` documents.
std::vector<Sample> choices_with(int64_t count, int64_t right) {
  std::vector<Sample> samples = choice_samples(count);
  for (int64_t i = right; i < count; ++i)
    samples[static_cast<size_t>(i)].scores.answers[0].log_likelihood = -1;
  return samples;
}

using Tasks = std::map<std::string, std::vector<Sample>>;

Tasks make_tasks(int64_t right, double log_likelihood) {
  return {{"alpha", choices_with(20, right)},
          {"beta", choices_with(10, right / 2)},
          {"pages", {rolling_sample(0, log_likelihood, 10, 50, 20), rolling_sample(1, -90, 20, 70, 40)}}};
}

std::string text_of(const std::vector<Sample>& samples) {
  std::string text;
  for (const Sample& sample : samples) text += to_line(sample) + "\n";
  return text;
}

/// The identity of the base "fp" of the tests, as divergence files name it.
std::string header_of(const std::string& task) {
  const Tasks base = make_tasks(20, -30);
  return divergence_header(task, {"fp", "float", "", sha256_hex(text_of(base.at(task)))}, 256) + "\n";
}

/// A finished folder of the tasks alpha and beta, which a group pools, and of pages.
ComparedRun make_run(const std::filesystem::path& directory, const std::string& name, int64_t right,
                     double log_likelihood, bool divergence) {
  const Tasks tasks = make_tasks(right, log_likelihood);
  RunResults run;
  run.bootstrap = {100, 1};
  run.model.weight_hash = name;
  run.model.arithmetic = "float";
  for (const auto& [task, samples] : tasks) {
    std::string lines = header_of(task);
    for (const Sample& sample : samples) {
      lines +=
          divergence_line({sample.scores.doc_id, sample.scores.token_hash, {0.5F, 1.5F}, {0, 1}, {1}}) + "\n";
    }
    qeval::create_directories(directory);
    write_file_atomically(directory / samples_file(task), text_of(samples));
    if (divergence) write_file_atomically(directory / divergence_file(task), lines);
    run.tasks.push_back(make_task_results(task, scores_of(samples), run.bootstrap));
    run.tasks.back().samples_hash = sha256_hex(text_of(samples));
  }
  run.groups.push_back(make_group_results(run, "both", {"alpha", "beta"}, {"acc"}));
  run.groups.push_back(make_group_results(run, "everything", {"both", "pages"}, {}));
  return {name, directory, run};
}

TEST(Comparison, TestsHeadlinesOverTheWholeReport) {
  const TemporaryFolder folder;
  const ComparedRun base = make_run(folder.path() / "fp", "fp", 20, -30, false);
  const Comparison result = compare_runs(base, {make_run(folder.path() / "a", "a", 12, -31, true),
                                                make_run(folder.path() / "b", "b", 18, -30, false)});
  ASSERT_EQ(result.differences.size(), 2U);
  // The group stands for its tasks: run a, both and pages, then run b.
  ASSERT_EQ(result.tests.size(), 4U);
  EXPECT_EQ(result.tests[0].name, "both");
  EXPECT_EQ(result.tests[0].metric, "acc");
  EXPECT_EQ(result.tests[1].name, "pages");
  EXPECT_EQ(result.tests[1].metric, "word_perplexity");
  EXPECT_EQ(result.tests[3].run, 1U);
  // 8 of alpha's and 4 of beta's documents are lost: p = 2 / 2^12, and of four tests: times 4.
  EXPECT_NEAR(result.tests[0].p_value, 2.0 / 4096, 1e-15);
  EXPECT_NEAR(result.tests[0].adjusted_p, 8.0 / 4096, 1e-15);
  EXPECT_EQ(result.find_test(1, "pages")->adjusted_p, 1);
  EXPECT_EQ(result.find_test(1, "alpha"), nullptr);

  const RunDifference& a = result.differences[0];
  EXPECT_EQ(a.find_group("both")->documents, 30);
  EXPECT_EQ(a.find_group("everything"), nullptr);
  EXPECT_EQ(a.find_task("alpha")->comparison.metrics[0].lost.size(), 8U);
  ASSERT_TRUE(a.find_task("alpha")->divergence.has_value());
  EXPECT_EQ(a.find_task("alpha")->divergence->positions, 40);
  EXPECT_EQ(a.find_task("alpha")->divergence->mean_kl, 1);
  EXPECT_EQ(a.find_task("alpha")->divergence->top1_agreement, 0.5);
  EXPECT_FALSE(result.differences[1].find_task("alpha")->divergence.has_value());

  const auto json = to_json(result);
  EXPECT_EQ(json["runs"][0]["tasks"]["alpha"]["metrics"]["acc"]["lost"], 8);
  EXPECT_EQ(json["runs"][0]["tasks"]["alpha"]["divergence"]["mean_kl_upper"], 1.5);
  EXPECT_EQ(json["tests"][0]["p_holm"], result.tests[0].adjusted_p);
}

/// What is stored is all that was found, and is not believed of folders that changed since.
TEST(Comparison, ReadsBackWhole) {
  const TemporaryFolder folder;
  const auto make = [&](const std::string& name, int64_t right, double log_likelihood, bool divergence) {
    ComparedRun run = make_run(folder.path() / "results" / name, name, right, log_likelihood, divergence);
    write_results(run.directory, run.results);
    return run;
  };
  const Comparison made =
      compare_runs(make("fp", 20, -30, false), {make("a", 12, -31, true), make("b", 18, -30, false)});
  const ComparisonFile file{"fp",
                            {{"fp", "fp", "", "", "float", "results/fp", "", {}},
                             {"a", "rtn", "", "w8a8", "fake", "results/a", "", {}},
                             {"b", "rtn", "", "w4a8", "fake", "results/b", "", {}}}};
  EXPECT_FALSE(read_comparison(folder.path(), file).has_value());
  write_comparison(folder.path(), file, made);
  const std::optional<Comparison> read = read_comparison(folder.path(), file);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(to_json(*read), to_json(made));
  const auto& alpha = *read->differences[0].find_task("alpha");
  EXPECT_THAT(alpha.comparison.metrics[0].lost, ElementsAre(12, 13, 14, 15, 16, 17, 18, 19));
  ASSERT_EQ(alpha.divergence->blocks.size(), 20U);
  EXPECT_EQ(alpha.divergence->blocks[3].tokens, 2);
  EXPECT_EQ(alpha.divergence->blocks[3].sum, 2);
  EXPECT_EQ(read->find_test(1, "pages")->adjusted_p, made.find_test(1, "pages")->adjusted_p);
  EXPECT_EQ(read->runs[1].directory, folder.path() / "results/b");

  make("b", 17, -30, false);
  EXPECT_FALSE(read_comparison(folder.path(), file).has_value());
  make("b", 18, -30, false);
  EXPECT_TRUE(read_comparison(folder.path(), file).has_value());
  ComparisonFile fewer = file;
  fewer.entries.pop_back();
  EXPECT_FALSE(read_comparison(folder.path(), fewer).has_value());
  nlohmann::ordered_json broken = to_json(made);
  broken["runs"][0]["tasks"]["alpha"]["metrics"]["acc"]["interval_95"] = "wide";
  write_file_atomically(folder.path() / results_file, broken.dump());
  EXPECT_THAT(message_of([&] { read_comparison(folder.path(), file); }),
              HasSubstr("a, alpha, acc: interval_95 is \"wide\"; accepted: two numbers, or null"));
}

TEST(Comparison, AnUnweightedMeanIsTheHeadlineWhereItStandsForTheGroup) {
  const TemporaryFolder folder;
  ComparedRun base = make_run(folder.path() / "fp", "fp", 20, -30, false);
  const ComparedRun run = make_run(folder.path() / "a", "a", 12, -31, false);
  base.results.groups[0].weighted = false;
  const Comparison result = compare_runs(base, {run});
  EXPECT_EQ(result.tests[0].name, "both");
  EXPECT_EQ(result.tests[0].metric, "acc_unweighted");
  const auto json = to_json(result)["runs"][0]["groups"]["both"]["metrics"];
  EXPECT_NEAR(json["acc_unweighted"]["delta"], -0.4, 1e-15);  // 8 of 20 and 4 of 10 are lost
  EXPECT_EQ(json["acc_unweighted"]["test"], "bootstrap");
  EXPECT_EQ(json["acc_unweighted"]["lost"], 12);
  EXPECT_EQ(json["acc"]["test"], "mcnemar");
}

TEST(Headline, IsTheFirstByRuleAndOfGroupsTheMeanThatStandsForThem) {
  TaskResults task;
  EXPECT_EQ(headline_metric(task), "");
  task.metrics = {{"acc", 0, {}}, {"acc_norm", 0, {}}};
  EXPECT_EQ(headline_metric(task), "acc_norm");
  task.metrics = {{"byte_perplexity", 0, {}}, {"word_perplexity", 0, {}}};
  EXPECT_EQ(headline_metric(task), "word_perplexity");
  GroupResults group;
  EXPECT_EQ(headline_metric(group), "");
  for (const char* name : {"acc", "acc_unweighted", "acc_norm", "acc_norm_unweighted"})
    group.metrics.push_back({name, 0, {}});
  EXPECT_EQ(headline_metric(group), "acc_norm");
  group.weighted = false;
  EXPECT_EQ(headline_metric(group), "acc_norm_unweighted");
  group.metrics.resize(1);  // a damaged file
  EXPECT_EQ(headline_metric(group), "acc");
}

/// The areas of MMLU name tasks that MMLU names, too, and were each tested besides it.
/// It was shown as an interval of no width, as if the difference were known.
TEST(Comparison, OneDocumentHasNoInterval) {
  const TemporaryFolder folder;
  const auto make = [&](const std::string& name, double log_likelihood) {
    const Sample page = rolling_sample(0, log_likelihood, 10, 50, 20);
    ComparedRun run{name, folder.path() / name, {}};
    qeval::create_directories(run.directory);
    write_file_atomically(run.directory / samples_file("page"), text_of({page}));
    run.results.tasks.push_back(make_task_results("page", scores_of({page}), {}));
    run.results.tasks[0].samples_hash = sha256_hex(text_of({page}));
    return run;
  };
  const Comparison result = compare_runs(make("fp", -30), {make("a", -31)});
  const auto json = to_json(result);
  EXPECT_TRUE(json["runs"][0]["tasks"]["page"]["metrics"]["word_perplexity"]["interval_95"].is_null());
  EXPECT_THAT(render_comparison(result), HasSubstr("+10.5 %              –"));
}

TEST(Comparison, AGroupInsideAnotherIsNotTestedAgain) {
  const TemporaryFolder folder;
  ComparedRun base = make_run(folder.path() / "fp", "fp", 20, -30, false);
  ComparedRun run = make_run(folder.path() / "a", "a", 12, -31, false);
  for (ComparedRun* each : {&base, &run})
    each->results.groups.push_back(make_group_results(each->results, "area", {"beta"}, {"acc"}));
  const Comparison result = compare_runs(base, {run});
  ASSERT_EQ(result.tests.size(), 2U);
  EXPECT_EQ(result.tests[0].name, "both");
  EXPECT_EQ(result.tests[1].name, "pages");
  EXPECT_NEAR(result.tests[0].adjusted_p, 2 * result.tests[0].p_value, 1e-15);
  ASSERT_NE(result.differences[0].find_group("area"), nullptr) << "it is shown all the same";
  EXPECT_EQ(result.differences[0].find_group("area")->documents, 10);
}

TEST(Headline, OfTheGroupsInsideOneAnotherTheOuterOneStands) {
  for (const auto& [selection, expected] :
       {std::pair("paper", "mmlu"), {"mmlu", "mmlu"}, {"commonsense", "commonsense"}}) {
    const Selection selected = resolve_tasks(selection);
    RunResults run;
    for (const Task& task : selected.tasks) {
      TaskResults& results = run.tasks.emplace_back();
      results.name = task.name;
      for (const std::string& metric : task.metrics) results.metrics.push_back({metric, 0.5, 0.1});
    }
    for (const Group& group : selected.groups)
      run.groups.push_back(make_group_results(run, group.name, group.tasks, group.metrics));
    const auto outer = outer_groups(run);
    ASSERT_EQ(outer.size(), 1U) << selection;
    EXPECT_EQ(outer[0]->name, expected);
  }
}

TEST(Comparison, RefusesAnotherBaseAndOtherDocuments) {
  const TemporaryFolder folder;
  ComparedRun base = make_run(folder.path() / "fp", "fp", 20, -30, false);
  const ComparedRun run = make_run(folder.path() / "a", "a", 12, -31, true);
  base.results.model.weight_hash = "others";
  EXPECT_THAT(message_of([&] { compare_runs(base, {run}); }),
              HasSubstr("measured from another base than fp"));
  base.results.model.weight_hash = "fp";
  const auto line = divergence_line({0, "aa", {}, {}, {}});
  write_file_atomically(folder.path() / "a" / divergence_file("beta"), header_of("beta") + line + "\n");
  EXPECT_THAT(message_of([&] { compare_runs(base, {run}); }), HasSubstr("is of other documents"));
  write_file_atomically(folder.path() / "a" / samples_file("alpha"), text_of(choices_with(20, 13)));
  EXPECT_THAT(message_of([&] { compare_runs(base, {run}); }), HasSubstr("samples_alpha.jsonl"));
  ComparedRun other = run;
  other.results.tasks.clear();
  EXPECT_THAT(message_of([&] { compare_runs(base, {other}); }), HasSubstr("share no task"));
}

TEST(ComparisonFile, ReadsBackAndRefusesWhatIsWrong) {
  const TemporaryFolder folder;
  ComparisonFile file{
      "fp",
      {{"fp", "fp", "", "", "float", "results/fp", "", {"qeval eval -m x"}},
       {"rtn w8a8", "rtn", "", "w8a8", "fake", "results/rtn", "checkpoints/rtn", {"a", "b"}}}};
  write_comparison_file(folder.path(), file);
  const ComparisonFile read = read_comparison_file(folder.path());
  EXPECT_EQ(read.base_entry().results, "results/fp");
  ASSERT_EQ(read.entries.size(), 2U);
  EXPECT_EQ(read.entries[1].checkpoint, "checkpoints/rtn");
  EXPECT_THAT(read.entries[1].commands, ElementsAre("a", "b"));

  const auto refusal = [&](auto change) {
    ComparisonFile wrong = file;
    change(wrong);
    write_comparison_file(folder.path(), wrong);
    return message_of([&] { read_comparison_file(folder.path()); });
  };
  EXPECT_THAT(refusal([](auto& f) { f.base = "other"; }), HasSubstr("base is "));
  EXPECT_THAT(refusal([](auto& f) { f.entries[1].name = "fp"; }), HasSubstr("used twice"));
  EXPECT_THAT(refusal([](auto& f) { f.entries[1].results = "/etc"; }), HasSubstr("entry 1"));
  EXPECT_THAT(refusal([](auto& f) { f.entries[1].checkpoint = "a/../../b"; }), HasSubstr("checkpoint is "));
  EXPECT_THAT(refusal([](auto& f) { f.entries.clear(); }), HasSubstr("entries is "));
}

TEST(ModelDetails, ReadBackAndTolerateOlderRuns) {
  ModelDetails details{1000, 1024, 4.5, 8, "w4a8", "Q4_1", "3 of 4", {}, {{0, 2.5}, {7, 1.25}}, {{3, 0.5}}};
  details.quantize = {{"method", "omniquant"}, {"settings", {{"variant", "modified"}}}, {"seconds", 12.5}};
  ModelInfo model;
  model.details = to_json(details);
  const ModelDetails read = model_details(model, "results.json");
  EXPECT_EQ(to_json(read), model.details);
  EXPECT_EQ(read.method(), "omniquant");
  EXPECT_EQ(read.variant(), "modified");
  EXPECT_EQ(read.quantize_seconds(), 12.5);
  EXPECT_FALSE(read.quantize_peak_bytes().has_value());
  EXPECT_EQ(read.format, "Q4_1");
  EXPECT_EQ(read.integer_linears, "3 of 4");
  EXPECT_EQ(read.training_loss[1].step, 7);
  EXPECT_EQ(read.layer_errors[0].layer, 3);

  model.details = {{"weight_bytes", 12}};
  EXPECT_EQ(model_details(model, "results.json").size_bytes, 0);
  model.details["training_loss"] = {{1, 2, 3}};
  EXPECT_THAT(message_of([&] { model_details(model, "results.json"); }), HasSubstr("results.json"));
}

/// The best run was the one with the best scores: chance, over a few documents.
TEST(NearestRun, IsTheOneWithTheLeastDivergence) {
  const auto with = [](std::vector<std::pair<double, int64_t>> of_tasks) {
    RunDifference difference;
    for (const auto& [kl, positions] : of_tasks) {
      DivergenceSummary summary;
      summary.mean_kl = kl;
      summary.positions = positions;
      difference.tasks.push_back({{}, summary});
    }
    return difference;
  };
  Comparison comparison;
  // Weighted by positions: 0.28, 0.19, not a number, none.
  comparison.differences = {with({{0.1, 10}, {0.3, 90}}), with({{0.9, 10}, {0.11, 90}}),
                            with({{std::nan(""), 10}}), RunDifference{}};
  EXPECT_EQ(nearest_run(comparison), 1U);
  comparison.differences.erase(comparison.differences.begin(), comparison.differences.begin() + 2);
  EXPECT_EQ(nearest_run(comparison), 0U);
}

}  // namespace
}  // namespace qeval::eval
