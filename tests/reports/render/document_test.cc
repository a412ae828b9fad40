#include "reports/render/document.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "reports/format.h"
#include "reports/render/plots.h"
#include "reports/render/scatter.h"
#include "reports/render/write.h"
#include "tests/message_of.h"
#include "tests/reports/markup.h"
#include "tests/reports/report_fixture.h"

namespace qeval::reports {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

std::string markdown_of(const Report& report) {
  return to_markdown(make_document(report), "report");
}
std::string html_of(const Report& report) {
  return to_html(make_document(report), report);
}

/// The first number of a text as tables print it.
double number_in(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool minus = text.substr(i).starts_with("−");
    if (text[i] != ',') plain += minus ? '-' : text[i];
    if (minus) i += 2;
  }
  const size_t first = plain.find_first_of("-+0123456789");
  return first == std::string::npos ? std::nan("") : std::stod(plain.substr(first));
}

/// CSV as RFC 4180 has it.
std::vector<std::vector<std::string>> csv_rows(const std::string& text) {
  std::vector<std::vector<std::string>> out(1, {""});
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '"' && text[i + 1] == '"') {
      out.back().back() += text[++i];
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && c == ',') {
      out.back().emplace_back();
    } else if (!quoted && c == '\n') {
      out.push_back({""});
    } else {
      out.back().back() += c;
    }
  }
  out.pop_back();
  return out;
}

void expect_tables_are_whole(const std::string& markdown) {
  const auto tables = markdown_tables(markdown);
  EXPECT_FALSE(tables.empty());
  for (const auto& table : tables) {
    ASSERT_GE(table.size(), 1U);
    for (const auto& row : table) EXPECT_EQ(row.size(), table[0].size()) << testing::PrintToString(row);
  }
}

/// Well-formed, nothing that loads from elsewhere, no script but ours.
void expect_safe_page(const std::string& html) {
  const Markup page = parse_markup(html);
  EXPECT_EQ(page.error, "");
  EXPECT_EQ(page.texts("script").size(), 1U);
  EXPECT_EQ(page.texts("style").size(), 1U);
  EXPECT_THAT(page.texts("style")[0], Not(testing::AnyOf(HasSubstr("url("), HasSubstr("@import"))));
  const std::set<std::string> known{
      "html", "head",    "meta",    "title", "style",   "body",   "header", "h1",     "h2",    "ul",
      "li",   "nav",     "a",       "main",  "section", "p",      "div",    "table",  "thead", "tbody",
      "tr",   "th",      "td",      "span",  "figure",  "svg",    "line",   "circle", "path",  "text",
      "pre",  "details", "summary", "label", "select",  "option", "output", "footer", "script"};
  for (const Markup::Element& element : page.elements) {
    EXPECT_TRUE(known.contains(element.name)) << element.name;
    for (const auto& [name, value] : element.attributes) {
      EXPECT_FALSE(name.starts_with("on")) << name;
      EXPECT_NE(name, "src");
      EXPECT_NE(name, "style");
      if (name == "href") {
        EXPECT_EQ(value[0], '#') << value;
      }
    }
  }
}

void expect_safe_drawing(const Plot& plot) {
  const std::string file = svg_file(plot);
  const Markup drawing = parse_markup(file);
  EXPECT_EQ(drawing.error, "") << file;
  EXPECT_THAT(file, Not(testing::AnyOf(HasSubstr("nan"), HasSubstr("inf\""), HasSubstr("<script"),
                                       HasSubstr("href"))));
}

void expect_safe(const Report& report) {
  expect_tables_are_whole(markdown_of(report));
  expect_safe_page(html_of(report));
  for (const Plot& plot : make_plots(report)) expect_safe_drawing(plot);
  const auto csv = csv_rows(to_csv(report));
  for (const auto& row : csv) EXPECT_EQ(row.size(), csv[0].size());
  EXPECT_TRUE(json::accept(to_json_text(report)));
  const std::string latex = to_latex(report);
  std::ptrdiff_t depth = 0;
  for (size_t i = 0; i < latex.size(); ++i) {
    if (latex[i] == '\\') {
      ++i;
    } else {
      depth += latex[i] == '{' ? 1 : latex[i] == '}' ? -1 : 0;
    }
    ASSERT_GE(depth, 0);
  }
  EXPECT_EQ(depth, 0);
}

class RenderedReport : public testing::Test {
 protected:
  RenderedReport()
      : report_(build_report(example_sources(folder_.path()), {.baseline = {}, .paper = true})) {}
  TemporaryFolder folder_;
  Report report_;
};

TEST_F(RenderedReport, IsWellFormedEverywhere) {
  expect_safe(report_);
}

/// Three float models were three rows called "Float".
TEST(ScoreTable, CallsRowsOfOneKindByTheirLabels) {
  const TemporaryFolder folder;
  SourceList sources;
  for (const char* model : {"tiny-f32", "tiny-bf16"}) {
    MadeRun run = made_run(model, "float");
    sources.runs.push_back(run.add("arc_easy", questions(5, 2)).write(folder.path() / model));
  }
  MadeRun quantized = quantized_run("rtn", "w8a8");
  sources.runs.push_back(quantized.add("arc_easy", questions(5, 2)).write(folder.path() / "rtn"));
  const Report report = build_report(sources, {.baseline = folder.path() / "tiny-f32"});
  const Table table = score_table(report);
  EXPECT_EQ(table.rows.at(0)[0].text, "tiny-f32, float");
  EXPECT_EQ(table.rows.at(1)[0].text, "tiny-bf16, float");
  EXPECT_EQ(table.rows.at(2)[0].text, "RTN");
  EXPECT_THAT(to_latex(report), HasSubstr("\ntiny-bf16, float & "));
}

TEST_F(RenderedReport, MarkdownShowsTheNumbersOfTheJson) {
  const json parsed = json::parse(to_json_text(report_));
  const auto table = markdown_tables(markdown_of(report_)).at(0);
  ASSERT_EQ(table.size(), 1 + report_.rows.size());
  for (size_t r = 0; r < report_.rows.size(); ++r) {
    for (size_t c = 0; c < report_.columns.size(); ++c) {
      const json& cell = parsed["report"]["rows"][r]["cells"][c];
      const double scale = report_.columns[c].unit == Unit::fraction ? 100 : 1;
      const std::string& text = table[r + 1][3 + c];
      const double tolerance = scale == 100 ? 0.0501 : 0.00501;
      EXPECT_NEAR(number_in(text), scale * cell["value"].get<double>(), tolerance) << text;
      EXPECT_NEAR(number_in(text.substr(text.find("±"))), scale * cell["stderr"].get<double>(), tolerance)
          << text;
      if (r == 0) continue;
      const std::string delta = text.substr(text.find("<br>") + 4);
      EXPECT_NEAR(number_in(delta), 100 * cell["difference"]["delta"].get<double>(), 0.0501) << text;
      EXPECT_EQ(std::ranges::count(delta, '*'), cell["difference"]["significance"].get<int>()) << text;
    }
  }
}

TEST_F(RenderedReport, HtmlShowsTheSameTexts) {
  const std::string html = html_of(report_);
  const Table scores = score_table(report_);
  const auto shown = html_table(html, "scores");
  ASSERT_EQ(shown.size(), scores.rows.size() + 1);
  for (size_t r = 0; r < scores.rows.size(); ++r) {
    ASSERT_EQ(shown[r + 1].size(), scores.rows[r].size());
    for (size_t i = 0; i < scores.rows[r].size(); ++i) {
      const TableCell& cell = scores.rows[r][i];
      EXPECT_TRUE(shown[r + 1][i].starts_with(cell.text)) << shown[r + 1][i];
      EXPECT_THAT(shown[r + 1][i], HasSubstr(cell.error));
      EXPECT_NEAR(cell.second.empty() ? 0 : number_in(shown[r + 1][i].substr(shown[r + 1][i].find('\n'))),
                  cell.second.empty() ? 0 : number_in(cell.second), 1e-12);
    }
  }
  EXPECT_THAT(html, HasSubstr("table-comparisons"));
  EXPECT_THAT(html, HasSubstr("class=\"example\""));
}

TEST_F(RenderedReport, CsvHoldsTheNumbersInFull) {
  const json parsed = json::parse(to_json_text(report_));
  const auto rows = csv_rows(to_csv(report_));
  ASSERT_EQ(rows.size(), 1 + report_.rows.size() * report_.columns.size());
  const auto field = [&](size_t row, const std::string& name) {
    const auto found = std::ranges::find(rows[0], name);
    return rows[row][static_cast<size_t>(found - rows[0].begin())];
  };
  size_t line = 1;
  for (const json& row : parsed["report"]["rows"]) {
    for (const json& cell : row["cells"]) {
      EXPECT_EQ(field(line, "run"), row["label"]);
      EXPECT_EQ(field(line, "task"), cell["task"]);
      EXPECT_EQ(std::stod(field(line, "value")), cell["value"].get<double>());
      EXPECT_EQ(std::stod(field(line, "stderr")), cell["stderr"].get<double>());
      if (cell.contains("difference")) {
        EXPECT_EQ(std::stod(field(line, "delta")), cell["difference"]["delta"].get<double>());
        EXPECT_EQ(std::stod(field(line, "p_holm")), cell["difference"]["p_holm"].get<double>());
      } else {
        EXPECT_EQ(field(line, "delta"), "");
      }
      ++line;
    }
  }
}

TEST_F(RenderedReport, JsonRepeatsTheRunsOwnResults) {
  const json parsed = json::parse(to_json_text(report_));
  const json own = json::parse(read_file(folder_.path() / "rtn" / eval::results_file));
  EXPECT_EQ(parsed["runs"][0]["results"]["results"], own["results"]);
  EXPECT_EQ(parsed["report"]["rows"][1]["cells"][1]["value"], own["results"]["arc_easy"]["acc_norm,none"]);
  EXPECT_EQ(parsed["report"]["rows"][1]["cells"][1]["difference"]["delta"],
            parsed["runs"][0]["tasks"]["arc_easy"]["metrics"]["acc_norm"]["delta"]);
}

TEST_F(RenderedReport, PlotsAreThoseThatHaveFigures) {
  std::vector<std::string> ids;
  for (const Plot& plot : make_plots(report_)) ids.push_back(plot.id);
  EXPECT_THAT(ids, testing::ElementsAre("perplexity", "delta-1", "delta-2", "delta-3", "layers", "training-1",
                                        "training-2"));
}

TEST_F(RenderedReport, IsWrittenWholeAndWithItsPlots) {
  const auto out = folder_.path() / "out";
  const std::vector<std::filesystem::path> sources{folder_.path() / "fp"};
  write_report(
      report_,
      {.markdown = out / "report.md", .html = out / "report.html", .csv = {}, .latex = {}, .json = {}},
      sources);
  const std::string markdown = read_file(out / "report.md");
  EXPECT_THAT(markdown, HasSubstr("(report-perplexity.svg)"));
  for (const Plot& plot : make_plots(report_)) {
    EXPECT_THAT(markdown, HasSubstr("(report-" + plot.id + ".svg)"));
    EXPECT_EQ(read_file(out / ("report-" + plot.id + ".svg")), svg_file(plot));
  }
  // A later report with fewer plots leaves none of these behind, and nothing of others is touched.
  std::ofstream(out / "report-delta-mine.svg") << "mine";
  Report fewer = report_;
  for (Row& row : fewer.rows) row.layer_errors.clear();
  write_report(fewer, {.markdown = out / "report.md", .html = {}, .csv = {}, .latex = {}, .json = {}},
               sources);
  EXPECT_FALSE(std::filesystem::exists(out / "report-layers.svg"));
  EXPECT_TRUE(std::filesystem::exists(out / "report-delta-mine.svg"));
}

/// One file per run, each score with its data set of the hub and what it means.
TEST_F(RenderedReport, EvaluationResultsAreThoseOfHubTasks) {
  report_.rows[0].date = 1.7e9;
  report_.rows[0].commit = "1a2b3c";
  const std::string text = to_evaluation_results(report_, report_.rows[0]);
  EXPECT_THAT(text,
              HasSubstr("- dataset:\n    id: allenai/ai2_arc\n    task_id: ARC-Easy\n  value: 75.0000\n"));
  EXPECT_NE(text.find("  date: \"2023-11-14\"\n  notes: \"acc"), std::string::npos);
  EXPECT_NE(text.find("qeval 0.1.0 (commit 1a2b3c), protocol lm-eval-0.4, test split, 0-shot, 200 of 1000 "
                      "documents, float"),
            std::string::npos)
      << text;
  EXPECT_EQ(text.find("part_one"), std::string::npos) << "no data set of the hub";
  const fs::path out = folder_.path() / "cards";
  write_report(report_, {.evaluation_results = out});
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(out)) {
    EXPECT_EQ(entry.path().extension(), ".yaml");
    ++files;
  }
  EXPECT_EQ(files, report_.rows.size());
  EXPECT_TRUE(fs::exists(out / "mobilequant-w8a8.yaml"));
  EXPECT_NE(message_of([&] {
              write_report(report_, {.evaluation_results = folder_.path() / "fp"});
            }).find("choose another directory"),
            std::string::npos);
}

TEST(TerminalPlot, PlacesRunsBySizeAndDivergence) {
  Report report;
  report.has_baseline = true;
  report.rows.resize(4);
  report.rows[0].is_baseline = true;
  const auto set = [&](size_t i, const char* label, int64_t bytes, double kl) {
    report.rows[i].label = label;
    report.rows[i].costs.size_bytes = bytes;
    report.rows[i].nearness = Nearness{.kl = {kl, {}, {}}};
  };
  set(1, "Q8_0", 140'000'000, 0.001);
  EXPECT_EQ(terminal_plot(report), "") << "one point is no plot";
  set(2, "Q4_0", 90'000'000, 0.1);
  set(3, "Q4_1", 100'000'000, 0.1);
  const std::string plot = terminal_plot(report);
  std::vector<std::string> lines;
  for (size_t at = 0; at < plot.size(); at = plot.find('\n', at) + 1)
    lines.push_back(plot.substr(at, plot.find('\n', at) - at));
  EXPECT_EQ(lines[1], "   0.100 | b" + std::string(10, ' ') + "c");
  EXPECT_EQ(lines[14], " 0.00100 | " + std::string(55, ' ') + "a") << plot;
  EXPECT_NE(plot.find("  a + Q8_0"), std::string::npos);
  EXPECT_NE(plot.find("  c   Q4_1"), std::string::npos) << "Q4_0 is as near and smaller";
}

TEST_F(RenderedReport, RefusesNamesThatWouldHarm) {
  const std::vector<std::filesystem::path> sources{folder_.path() / "fp"};
  const auto error = [&](const Outputs& outputs) -> std::string {
    try {
      write_report(report_, outputs, sources);
    } catch (const Error& refused) {
      return refused.what();
    }
    return {};
  };
  const auto results = folder_.path() / "fp" / "results.json";
  const std::string before = read_file(results);
  EXPECT_THAT(error({.markdown = {}, .html = {}, .csv = {}, .latex = {}, .json = results}),
              HasSubstr("would replace"));
  EXPECT_EQ(read_file(results), before);
  // Only .json and .jsonl were guarded, and kept log-probabilities were overwritten.
  const auto below = folder_.path() / "fp" / "checkpoints" / "model.safetensors";
  std::filesystem::create_directories(below.parent_path());
  for (const auto& file : {folder_.path() / "fp" / "logprobs_arc_easy.bin", below}) {
    std::ofstream(file) << "kept";
    EXPECT_THAT(error({.markdown = file, .html = {}, .csv = {}, .latex = {}, .json = {}}),
                HasSubstr("would replace"));
    EXPECT_EQ(read_file(file), "kept");
  }
  for (int times = 0; times < 2; ++times) {
    EXPECT_EQ(error({.markdown = folder_.path() / "fp" / "report.md",
                     .html = folder_.path() / "fp" / "report.html",
                     .csv = {},
                     .latex = {},
                     .json = {}}),
              "");
  }
  const auto twice = folder_.path() / "x";
  EXPECT_THAT(error({.markdown = twice, .html = twice, .csv = {}, .latex = {}, .json = {}}),
              HasSubstr("two outputs"));
  EXPECT_THAT(error({.markdown = folder_.path(), .html = {}, .csv = {}, .latex = {}, .json = {}}),
              HasSubstr("is a folder"));
  const std::string below_a_file =
      error({.markdown = results / "report.md", .html = {}, .csv = {}, .latex = {}, .json = {}});
  EXPECT_THAT(below_a_file, HasSubstr("results.json"));
  EXPECT_THAT(below_a_file, Not(HasSubstr("\n")));
}

const std::vector<std::string> hostile{"<script>alert(1)</script>",
                                       "a|b`c``d\n| x | y |\n# heading",
                                       std::string(300, 'W'),
                                       "=cmd|'/c calc'!A1",
                                       "\\input{/etc/passwd} $x$ % & # _",
                                       "]]> --> \" onload=\"x ' {{7*7}}",
                                       std::string("nul\0esc\x1b[2J\x07", 12),
                                       "rtl \u202E right \u2066 left",
                                       "-- javascript:alert(1)"};

TEST(HostileReport, NamesOfModelsTasksAndRunsRenderSafely) {
  for (const std::string& text : hostile) {
    const TemporaryFolder folder;
    SourceList sources = example_sources(folder.path());
    for (Source& source : sources.runs) {
      source.results.model.name = text;
      source.results.protocol = source.results.prefix_policy = source.results.tokenizer_hash = text;
      source.results.environment = {text, text, 2, text};
      source.results.model.weight_hash = text;
      source.scheme = text;
      source.label = text;
      source.commands = {text};
      for (eval::TaskResults& task : source.results.tasks)
        task.version = task.split = task.data_hash = task.prompt_hash = text;
    }
    Report report = build_report(sources);
    for (Column& column : report.columns) column.title = column.metric = text;
    for (TaskProtocol& task : report.protocol.tasks) task.task = text;
    for (Example& example : report.examples) {
      example.question = example.task = text;
      for (Choice& choice : example.choices) choice.text = text;
    }
    report.notes.push_back(text);
    SCOPED_TRACE(text);
    expect_safe(report);
    for (Row& row : report.rows) row.commands.clear();  // they stand in fences, as they are
    const std::string markdown = markdown_of(report);
    EXPECT_THAT(markdown, Not(HasSubstr("<script")));
    EXPECT_THAT(markdown, Not(HasSubstr("\n# heading")));
    EXPECT_THAT(to_latex(report), Not(HasSubstr("\\input")));
    for (const auto& row : csv_rows(to_csv(report)))
      EXPECT_THAT(std::string("=+@"), Not(HasSubstr(row[0].substr(0, 1))));
  }
}

TEST(HostileReport, TasksWithHostileNamesRenderSafely) {
  // Only names that can be part of a file's name get so far.
  for (const std::string text : {"<script>alert(1)<\u2215script>", "a|b`c", "=1+1", "\\input{x}"}) {
    const TemporaryFolder folder;
    MadeRun base = made_run("m", "float"), other = quantized_run("rtn", "w8a8");
    base.add(text, questions(4, 3));
    other.add(text, questions(4, 1));
    SCOPED_TRACE(text);
    expect_safe(build_report(
        {.runs = {base.write(folder.path() / "a"), other.write(folder.path() / "b")}, .unfinished = {text}}));
  }
}

TEST(HostileReport, NumbersThatAreNoneRenderSafely) {
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL, 1e308, -1e308, 5e-324, 0.0}) {
    const TemporaryFolder folder;
    MadeRun base = made_run("m", "float"), other = quantized_run("mobilequant", "w8a8");
    base.add("wikitext", pages(3, -300)).add("arc_easy", questions(4, 2));
    std::vector<eval::Sample> broken = pages(3, -310), wrong = questions(4, 1);
    for (eval::Sample& sample : broken) sample.scores.answers[0].log_likelihood = value;
    for (eval::Sample& sample : wrong) sample.scores.answers[1].log_likelihood = value;
    other.add("wikitext", broken).add("arc_easy", wrong);
    Report report = build_report(
        {.runs = {base.write(folder.path() / "a"), other.write(folder.path() / "b")}, .unfinished = {}});
    SCOPED_TRACE(value);
    expect_safe(report);
    for (Row& row : report.rows) {
      row.cells[0]->value = row.costs.seconds = value;
      row.cells[0]->standard_error = row.costs.tokens_per_second = row.costs.weight_bits = value;
      row.costs.quantize_seconds = value;
      row.layer_errors = {{0, value}, {1, 0.5}};
      row.training_loss = {{0, value}, {value, 1}, {2, 2}};
      row.cells[0]->divergence = Divergence{1, value, value, value, value};
      if (!row.cells[1]->difference) continue;
      Difference& difference = *row.cells[1]->difference;
      difference.delta = difference.p = difference.p_holm = value;
      difference.interval = eval::Interval{value, value};
    }
    expect_safe(report);
  }
}

TEST(HostileReport, OneDocumentNoneAndNoMetricsRender) {
  for (const int64_t documents : {0, 1}) {
    const TemporaryFolder folder;
    MadeRun base = made_run("m", "float"), other = quantized_run("rtn", "w8a8");
    base.add("wikitext", pages(documents, -300)).add("arc_easy", questions(documents, 1));
    other.add("wikitext", pages(documents, -310)).add("arc_easy", questions(documents, 0));
    SCOPED_TRACE(documents);
    expect_safe(build_report(
        {.runs = {base.write(folder.path() / "a"), other.write(folder.path() / "b")}, .unfinished = {}}));
    expect_safe(build_report({.runs = {base.write(folder.path() / "a")}, .unfinished = {}}));
  }
  const TemporaryFolder folder;
  MadeRun nothing = made_run("m", "float");
  expect_safe(build_report({.runs = {nothing.write(folder.path() / "a")}, .unfinished = {}}));
}

TEST(ReportNumbers, ReadAsTablesShowThem) {
  EXPECT_EQ(score_text(0.4533, Unit::fraction), "45.3");
  EXPECT_EQ(score_text(18.234, Unit::perplexity), "18.23");
  EXPECT_EQ(score_text(12345.6, Unit::perplexity), "12346");
  EXPECT_EQ(score_text(1.8321, Unit::perplexity), "1.832");
  EXPECT_EQ(error_text(0.0042, 1.8321, Unit::perplexity), "± 0.004");
  EXPECT_EQ(error_text(0.5, 18.2, Unit::perplexity), "± 0.50");
  EXPECT_EQ(error_text({}, 18.2, Unit::perplexity), "");
  EXPECT_EQ(score_text(-HUGE_VAL, Unit::bits), "−∞");
  EXPECT_EQ(delta_text(-0.012, Unit::fraction), "−1.2");
  EXPECT_EQ(delta_text(0, Unit::fraction), "0.0");
  EXPECT_EQ(delta_text(-1e-9, Unit::fraction), "0.0");
  EXPECT_EQ(delta_text(0.029, Unit::perplexity), "+2.9 %");
  EXPECT_EQ(delta_text(26, Unit::perplexity), "× 27.0");
  EXPECT_EQ(p_text(0.0004), "<0.001");
  EXPECT_EQ(p_text(std::nan("")), "–");
  EXPECT_EQ(count_text(1234567), "1,234,567");
  EXPECT_EQ(count_text(-1234), "-1,234");
  EXPECT_EQ(count_text(12), "12");
  EXPECT_EQ(kl_text(0.37), "0.370");
  EXPECT_EQ(kl_text(0), "0");
  EXPECT_EQ(bytes_text(538'089'832), "538 MB");
  EXPECT_EQ(bytes_text(1'100'000), "1.10 MB");
  EXPECT_EQ(duration_text(784.4), "13 min 4 s");
  EXPECT_EQ(duration_text(59.7), "1 min 0 s");
}

}  // namespace
}  // namespace qeval::reports
