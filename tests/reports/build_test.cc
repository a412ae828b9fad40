#include "reports/build.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "reports/render/document.h"
#include "reports/render/table.h"
#include "tests/message_of.h"
#include "tests/reports/report_fixture.h"

namespace qeval::reports {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

std::string error_of(SourceList sources, const BuildOptions& options = {}) {
  return message_of([&] { build_report(std::move(sources), options); });
}

const Difference& difference(const Report& report, size_t row, size_t column) {
  return report.rows.at(row).cells.at(column).value().difference.value();
}

TEST(BuildReport, LaysOutRowsAndColumnsAsThePaperDoes) {
  const TemporaryFolder folder;
  const Report report = build_report(example_sources(folder.path()));
  ASSERT_EQ(report.columns.size(), 3U);
  EXPECT_EQ(report.columns[0].title, "WikiText");
  EXPECT_EQ(report.columns[0].metric, "word_perplexity");
  EXPECT_EQ(report.columns[1].metric, "acc_norm");
  EXPECT_EQ(report.columns[2].task, "both");  // the group, not its tasks
  EXPECT_EQ(report.columns[2].documents, 200);
  ASSERT_EQ(report.rows.size(), 3U);
  EXPECT_TRUE(report.rows[0].is_baseline);
  EXPECT_EQ(report.rows[0].arithmetic, "float");
  EXPECT_EQ(report.rows[1].label, "RTN w8a8");
  EXPECT_EQ(report.rows[2].label, "MobileQuant w8a8");
  EXPECT_EQ(report.details.size(), 4U + 2 + 2 + 2 + 2);  // acc and acc_unweighted of the group
}

TEST(BuildReport, DifferencesFollowFromTheSamples) {
  const TemporaryFolder folder;
  const Report report = build_report(example_sources(folder.path()));
  // Pages differ by 30 nats of 100 words each: perplexity grows by exp(0.3).
  EXPECT_NEAR(difference(report, 1, 0).delta, std::expm1(0.3), 1e-12);
  EXPECT_TRUE(difference(report, 1, 0).worse);
  EXPECT_GT(difference(report, 1, 0).significance, 0);
  const Difference& questions = difference(report, 1, 1);  // right 150 → 80 of 200
  EXPECT_DOUBLE_EQ(questions.delta, -0.35);
  EXPECT_EQ(questions.lost, 70);
  EXPECT_EQ(questions.gained, 0);
  EXPECT_EQ(questions.significance, 3);
  const Difference& few = difference(report, 2, 1);  // 150 → 148: p = 0.5
  EXPECT_DOUBLE_EQ(few.p, 0.5);
  EXPECT_GE(few.p_holm, few.p);
  EXPECT_EQ(few.significance, 0);
  EXPECT_EQ(report.comparisons, 6);
  const Difference& group = difference(report, 1, 2);  // 75 + 37 → 40 + 20 of 200
  EXPECT_NEAR(group.delta, -52.0 / 200, 1e-12);
  EXPECT_EQ(group.lost, 52);
}

TEST(BuildReport, TheVerdictNamesTheBestAndWhatWasLost) {
  const TemporaryFolder folder;
  const Report report = build_report(example_sources(folder.path()));
  ASSERT_EQ(report.verdict.size(), 4U);
  EXPECT_THAT(report.verdict[0], HasSubstr("Perplexity on WikiText against"));
  EXPECT_THAT(report.verdict[0], ContainsRegex("MobileQuant w8a8 .3.0 % .*; RTN w8a8 .35.0 %"));
  EXPECT_THAT(report.verdict[1], HasSubstr("Significant losses in"));
  EXPECT_THAT(report.verdict[1], HasSubstr("RTN w8a8 on WikiText (+35.0 %)"));
  EXPECT_THAT(report.verdict[2], HasSubstr("equal in accuracy within ±1 point"));
  EXPECT_THAT(report.verdict[3], HasSubstr("400 documents cannot detect losses of accuracy below"));
  EXPECT_THAT(report.verdict[3], HasSubstr("1 point would take"));
}

eval::Sample written(int64_t doc_id, const std::string& text, bool right, eval::TextEnd end) {
  eval::Sample sample = question(doc_id, right);
  sample.scores.scoring = eval::Scoring::generation;
  sample.scores.metrics = {"exact_match,strict-match", "exact_match,flexible-extract"};
  sample.scores.values = {right ? 1.0 : 0.0, 1.0};
  sample.scores.facts = {};
  sample.scores.answers = {{.tokens = 10, .input_tokens = 4, .end = end}};
  sample.target = "18";
  sample.requests.resize(1);
  sample.requests[0].continuation.clear();
  sample.generated = {{{"until", {"\n"}}},
                      {text},
                      {{"strict-match", right ? "18" : "[invalid]"}, {"flexible-extract", "18"}}};
  return sample;
}

TEST(Build, TextsAreComparedAndShown) {
  const TemporaryFolder folder;
  std::string loop = "It is ";
  while (loop.size() < 200) loop += "18, so it is ";
  std::vector<eval::Sample> base, other;
  for (int64_t i = 0; i < 10; ++i) {
    base.push_back(written(i, "It is <18>.", true, eval::TextEnd::stop));
    other.push_back(i == 0   ? written(i, loop, false, eval::TextEnd::length)
                    : i == 1 ? written(i, loop, true, eval::TextEnd::length)
                             : base.back());
  }
  SourceList sources;
  sources.runs = {made_run("tiny", "float").add("gsm8k", base).write(folder.path() / "fp"),
                  quantized_run("rtn", "w4a8").add("gsm8k", other).write(folder.path() / "rtn")};
  const Report report = build_report(sources, {});
  const Texts& texts = report.rows[1].cells[0]->texts.value();
  EXPECT_EQ(texts.documents, 10);
  EXPECT_EQ(texts.equal, 8);
  EXPECT_EQ(texts.first_difference, 6);
  EXPECT_EQ(texts.unended.base, 0);
  EXPECT_EQ(texts.unended.here, 2);
  EXPECT_EQ(texts.looping.here, 2);
  EXPECT_EQ(texts.looping.p, 0.5);
  ASSERT_EQ(report.examples.size(), 2U);
  EXPECT_FALSE(report.examples[0].runaway);
  EXPECT_EQ(report.examples[0].written->target, "18");
  EXPECT_EQ(report.examples[0].written->other_answer, "[invalid]");
  EXPECT_EQ(report.examples[0].written->common, 6U);
  EXPECT_TRUE(report.examples[1].runaway);
  EXPECT_EQ(report.examples[1].doc_id, 1);
  const std::string html = to_html(make_document(report), report);
  EXPECT_THAT(html, HasSubstr("It is <mark>&lt;18&gt;.</mark>"));
  EXPECT_THAT(html, HasSubstr("1 of 1 changed answers, with their text, and 1 texts that no longer end"));
  EXPECT_THAT(to_markdown(make_document(report), "plot"), HasSubstr("8 of 10"));
}

/// Chance led the verdict: the best score over a few documents. The divergence tells the runs apart.
TEST(BuildReport, TheSharpestMeasureLeadsTheVerdict) {
  const TemporaryFolder folder;
  SourceList sources = example_sources(folder.path());
  sources.runs[1].is_base = true;
  eval::DivergenceResults text;
  text.text = {
      .file = "page.txt", .sha256 = "abc", .bytes = 100, .protocol = "qeval", .context = 64, .windows = 4};
  for (const size_t i : {0, 2}) {  // RTN and MobileQuant; between them is the baseline
    eval::DivergenceTally tally;
    for (int window = 0; window < 4; ++window) {
      for (int token = 0; token < 50; ++token)
        tally.add({.kl = (i == 0 ? 0.1 : 0.9) + 0.01 * window, .acceptance = 0.9});
      tally.end_window();
    }
    sources.runs[i].name = "run " + std::to_string(i);
    text.runs.emplace_back().label = sources.runs[i].name;
    text.runs.back().divergence = std::move(tally).finish();
  }
  text.runs.back().losses = eval::SplitLoss{.weights = 0.5, .together = 0.75, .kv_type = "f16"};
  sources.text = text;
  const Report report = build_report(sources);
  EXPECT_LE(report.verdict.size(), 5U);
  EXPECT_THAT(report.verdict[0], HasSubstr("on page.txt (200 tokens), KL in nats"));
  EXPECT_THAT(report.verdict[0], HasSubstr("RTN w8a8 0.12"));
  EXPECT_THAT(report.verdict[1], HasSubstr("Nearest: RTN w8a8, and no other run is tied with it"));
  ASSERT_TRUE(report.rows[1].nearness && report.rows[2].nearness);
  EXPECT_FALSE(report.rows[2].nearness->tied);
  EXPECT_FALSE(report.rows[1].nearness->losses);
  ASSERT_TRUE(report.rows[2].nearness->losses);
  EXPECT_EQ(report.rows[2].nearness->losses->interaction(), 0.25);
  const Table losses = losses_table(report);
  ASSERT_EQ(losses.rows.size(), 1U);
  std::vector<std::string> cells;
  for (const TableCell& cell : losses.rows[0]) cells.push_back(cell.text);
  EXPECT_THAT(cells, testing::ElementsAre(report.rows[2].label, "0.500", "0", "0", "f16", "0.250", "0.750"));
  ASSERT_TRUE(report.rows[1].recovery);
  EXPECT_LT(*report.rows[1].recovery, 1);
}

/// Under lm-eval-0.3 MMLU is the plain mean of its subjects; the report showed and tested the weighted one.
TEST(BuildReport, AnUnweightedGroupStandsWithItsUnweightedMean) {
  const TemporaryFolder folder;
  SourceList sources;
  const auto add = [&](MadeRun run, int64_t right) {
    run.add("part_one", questions(300, right)).add("part_two", questions(30, 15));
    run.results.groups.push_back(
        eval::make_group_results(run.results, "both", {"part_one", "part_two"}, {"acc"}, false));
    sources.runs.push_back(run.write(folder.path() / std::to_string(sources.runs.size())));
  };
  add(made_run("tiny", "float"), 200);
  add(quantized_run("rtn", "w8a8"), 140);
  const Report report = build_report(sources, {.baseline = {}, .paper = false, .examples = true});
  ASSERT_EQ(report.columns.size(), 1U);
  EXPECT_EQ(report.columns[0].metric, "acc_unweighted");
  EXPECT_NEAR(report.rows[0].cells[0]->value, (200.0 / 300 + 0.5) / 2, 1e-15);
  const Difference& both = difference(report, 1, 0);
  EXPECT_NEAR(both.delta, -0.1, 1e-12);  // the weighted mean falls by 60 of 330
  EXPECT_TRUE(both.interval);
  EXPECT_EQ(both.significance, 3);
  EXPECT_EQ(both.lost, 60);
  EXPECT_FALSE(report.examples.empty());
  EXPECT_THAT(report.verdict.at(1), HasSubstr("Significant losses in 1 of 1 comparison of tasks"));
  EXPECT_THAT(report.verdict.at(1), HasSubstr("on both (−10.0 points)"));
}

TEST(BuildReport, AGroupInsideAnotherStandsInTheDetailsOnly) {
  const TemporaryFolder folder;
  SourceList sources;
  const auto add = [&](MadeRun run, int64_t right) {
    run.add("part_one", questions(60, right)).add("part_two", questions(30, 15));
    const auto add_group = [&](const char* name, const std::vector<std::string>& tasks) {
      run.results.groups.push_back(eval::make_group_results(run.results, name, tasks, {"acc"}));
    };
    add_group("both", {"part_one", "part_two"});
    add_group("area", {"part_two"});
    sources.runs.push_back(run.write(folder.path() / std::to_string(sources.runs.size())));
  };
  add(made_run("tiny", "float"), 40);
  add(quantized_run("rtn", "w8a8"), 30);
  const Report report = build_report(sources);
  ASSERT_EQ(report.columns.size(), 1U);
  EXPECT_EQ(report.columns[0].task, "both");
  EXPECT_EQ(report.comparisons, 1);
  const auto area = std::ranges::find(report.details, "area", &Column::task);
  ASSERT_NE(area, report.details.end());
  EXPECT_TRUE(report.rows[1].details[static_cast<size_t>(area - report.details.begin())]->difference);
}

TEST(BuildReport, WithoutAPerplexityTheVerdictRanksByTheTasks) {
  const TemporaryFolder folder;
  SourceList sources;
  const auto add = [&](MadeRun run, int64_t right) {
    run.add("arc_easy", questions(100, right)).add("piqa", questions(100, right));
    sources.runs.push_back(run.write(folder.path() / std::to_string(sources.runs.size())));
  };
  add(made_run("tiny", "float"), 60);
  add(quantized_run("rtn", "w8a8"), 50);
  add(quantized_run("mobilequant", "w8a8"), 58);
  EXPECT_THAT(build_report(sources).verdict.at(0),
              ContainsRegex("Points of accuracy against .*: MobileQuant w8a8 −2.0 .*; RTN w8a8 −10.0"));
}

TEST(BuildReport, ARunAgainstItselfDiffersInNothing) {
  const TemporaryFolder folder;
  SourceList sources = example_sources(folder.path());
  MadeRun again = made_run("tiny", "fake");
  again.add("arc_easy", questions(200, 150));
  sources.runs = {sources.runs[1], again.write(folder.path() / "again")};
  const Report report = build_report(sources);
  const Difference& same = difference(report, 1, 1);
  EXPECT_EQ(same.delta, 0);
  EXPECT_EQ(same.lost + same.gained, 0);
  EXPECT_EQ(same.p, 1);
  EXPECT_EQ(same.significance, 0);
  EXPECT_THAT(report.verdict.at(1), HasSubstr("equal to the baseline in every score"));
}

TEST(BuildReport, OneDocumentProvesNothing) {
  const TemporaryFolder folder;
  MadeRun base = made_run("tiny", "float"), other = quantized_run("rtn", "w4a8");
  base.add("wikitext", pages(1, -300));
  other.add("wikitext", pages(1, -900));
  const Report report = build_report(
      {.runs = {base.write(folder.path() / "a"), other.write(folder.path() / "b")}, .unfinished = {}});
  EXPECT_FALSE(difference(report, 1, 0).interval);
  EXPECT_EQ(difference(report, 1, 0).significance, 0);
}

/// Two documents without flips had the interval [0, 0], and the verdict ruled out what nobody had looked at.
TEST(BuildReport, AFewAnswersThatDidNotFlipRuleLittleOut) {
  const TemporaryFolder folder;
  MadeRun base = made_run("tiny", "float"), other = quantized_run("rtn", "w8a8");
  base.add("hellaswag", questions(2, 1)).add("arc_easy", questions(400, 200));
  other.add("hellaswag", questions(2, 1)).add("arc_easy", questions(400, 199));
  const Report report = build_report(
      {.runs = {base.write(folder.path() / "a"), other.write(folder.path() / "b")}, .unfinished = {}});
  EXPECT_NEAR(difference(report, 1, 0).interval.value().low, -0.6576, 1e-4);
  EXPECT_THAT(report.verdict.back(), HasSubstr("402 documents cannot detect"));
}

TEST(BuildReport, KeepsExamplesOnlyWhereAsked) {
  const TemporaryFolder folder;
  const SourceList sources = example_sources(folder.path());
  const Report with = build_report(sources, {.baseline = {}, .paper = false, .examples = true});
  ASSERT_FALSE(with.examples.empty());
  const Example& example = with.examples.front();
  EXPECT_FALSE(example.gained);
  EXPECT_THAT(example.question, HasSubstr("Question 80"));  // the first that RTN loses
  ASSERT_EQ(example.choices.size(), 2U);
  EXPECT_TRUE(example.choices[1].gold && example.choices[1].chosen_by_base);
  EXPECT_TRUE(example.choices[0].chosen_by_other);
  EXPECT_EQ(example.choices[1].base, -10.25);
  EXPECT_EQ(example.choices[1].other, -20.0);
  const Report without = build_report(sources, {.baseline = {}, .paper = false, .examples = false});
  EXPECT_TRUE(without.examples.empty());
  EXPECT_THAT(to_html(make_document(without), without), Not(HasSubstr("Question 80")));
  EXPECT_THAT(to_json_text(with), Not(HasSubstr("Question 80")));
}

TEST(BuildReport, TheBaselineIsTheFloatRunOrTheOneNamed) {
  const TemporaryFolder folder;
  SourceList sources = example_sources(folder.path());
  const Report named = build_report(sources, {.baseline = folder.path() / "rtn"});
  EXPECT_EQ(named.rows[0].label, "RTN w8a8");
  EXPECT_THAT(error_of(sources, {.baseline = folder.path() / "nowhere"}), HasSubstr("baseline"));
  sources.runs = {sources.runs[0], sources.runs[2]};
  EXPECT_THAT(error_of(sources), HasSubstr("baseline DIR"));
  sources.runs = {sources.runs[0]};
  const Report single = build_report(sources);
  EXPECT_FALSE(single.has_baseline);
  EXPECT_FALSE(single.rows[0].cells[0]->difference);
  EXPECT_THAT(single.verdict.at(0), HasSubstr("nothing to compare"));
}

TEST(BuildReport, RefusesRunsThatCannotBeCompared) {
  const TemporaryFolder folder;
  MadeRun base = made_run("tiny", "float"), other = quantized_run("rtn", "w8a8");
  base.add("arc_easy", questions(20, 10));
  const Source source = base.write(folder.path() / "fp");
  const auto against = [&](MadeRun run) {
    return error_of({.runs = {source, run.write(folder.path() / "other")}, .unfinished = {}});
  };
  EXPECT_THAT(against(MadeRun(other).add("arc_easy", questions(21, 10))), HasSubstr("21"));
  std::vector<eval::Sample> ids = questions(20, 10);
  ids[7].scores.token_hash = "f0112233445566778899aabbccddee77";
  EXPECT_THAT(against(MadeRun(other).add("arc_easy", ids)),
              HasSubstr("document 7 was scored from different token ids"));
  MadeRun protocol = other;
  protocol.results.protocol = "lm-eval-0.3";
  EXPECT_THAT(against(protocol.add("arc_easy", questions(20, 10))), HasSubstr("lm-eval-0.3"));
  MadeRun length = other;
  length.results.max_length = 1024;
  EXPECT_THAT(against(length.add("arc_easy", questions(20, 10))), HasSubstr("1024"));
}

TEST(BuildReport, TaskOnlySomeRunsHaveIsLeftOpen) {
  const TemporaryFolder folder;
  MadeRun base = made_run("tiny", "float"), other = quantized_run("rtn", "w8a8");
  base.add("arc_easy", questions(50, 20)).add("piqa", questions(50, 20));
  other.add("arc_easy", questions(50, 20));
  const Report report =
      build_report({.runs = {base.write(folder.path() / "a"), other.write(folder.path() / "b")},
                    .unfinished = {"omniquant w4a8"}});
  EXPECT_FALSE(report.rows[1].cells[1]);
  const std::string notes = testing::PrintToString(report.notes);
  EXPECT_THAT(notes, HasSubstr("RTN w8a8 lacks PIQA"));
  EXPECT_THAT(notes, HasSubstr("omniquant w4a8"));
}

/// "… and 2 more documents" was said where two tasks were left out of the list.
TEST(BuildReport, NotesCountTheTasksThatTheyDoNotList) {
  const TemporaryFolder folder;
  MadeRun run = made_run("tiny", "float");
  for (int i = 0; i < 10; ++i) run.add("task_" + std::to_string(i), questions(40, 20));
  const Report report = build_report({.runs = {run.write(folder.path() / "a")}, .unfinished = {}});
  EXPECT_THAT(report.notes.at(0), HasSubstr("not all documents were scored: task_0 (40 of 1,000), task_1"));
  EXPECT_THAT(report.notes.at(0), HasSubstr("task_7 (40 of 1,000) and 2 more. Such scores"));
}

TEST(BuildReport, LabelsDiffer) {
  const TemporaryFolder folder;
  MadeRun base = made_run("tiny", "float");
  base.add("arc_easy", questions(5, 2));
  MadeRun other = quantized_run("rtn", "w8a8");
  other.add("arc_easy", questions(5, 2));
  const Report report =
      build_report({.runs = {base.write(folder.path() / "a"), other.write(folder.path() / "b"),
                             other.write(folder.path() / "c")},
                    .unfinished = {}});
  EXPECT_EQ(report.rows[1].label, "RTN w8a8 (b)");
  EXPECT_EQ(report.rows[2].label, "RTN w8a8 (c)");
}

TEST(BuildReport, LongTrainingIsThinnedWithoutLosingItsMean) {
  const TemporaryFolder folder;
  MadeRun run = quantized_run("omniquant", "w8a8");
  nlohmann::ordered_json losses = nlohmann::ordered_json::array();
  for (int step = 0; step < 4000; ++step) losses.push_back({step, step % 2});
  losses.push_back("nonsense");
  run.results.model.details["training_loss"] = losses;
  run.results.model.details["size_bytes"] = "nonsense";
  run.add("arc_easy", questions(5, 2));
  const Report report = build_report({.runs = {run.write(folder.path() / "a")}, .unfinished = {}});
  ASSERT_EQ(report.rows[0].training_loss.size(), 400U);
  EXPECT_DOUBLE_EQ(report.rows[0].training_loss[3].loss, 0.5);
  EXPECT_DOUBLE_EQ(report.rows[0].training_loss[0].step, 4.5);
  EXPECT_FALSE(report.rows[0].costs.size_bytes);
  EXPECT_EQ(report.rows[0].worst_layers.at(0).layer, 1);
}

}  // namespace
}  // namespace qeval::reports
