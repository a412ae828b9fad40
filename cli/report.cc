#include <iostream>

#include "base/error.h"
#include "cli/command.h"
#include "cli/option_values.h"
#include "eval/results/recompute.h"
#include "eval/results/results.h"
#include "eval/results/table.h"
#include "reports/build.h"
#include "reports/render/scatter.h"
#include "reports/render/write.h"

namespace qeval::cli {
namespace {

namespace fs = std::filesystem;

po::options_description report_options() {
  po::options_description options("Options");
  auto add = options.add_options();
  const auto file = [] { return po::value<std::string>()->value_name("FILE"); };
  add("folder", po::value<std::vector<std::string>>()->value_name("DIR"),
      "folder of results (qeval eval -o) or of a comparison (qeval compare -o); may be given without the "
      "option's "
      "name, and several times");
  add("output,o", file(), "write the report as Markdown, plots as .svg files beside it");
  add("html", file(), "write it as one page of HTML, with the questions whose answers changed");
  add("csv", file(), "write the scores as CSV, a line per run and task");
  add("latex", file(), "write the table of scores as LaTeX");
  add("card", file(),
      "write a part of a model card: front matter with `model-index`, and a table of scores, recovery and "
      "divergence");
  add("eval-results", po::value<std::string>()->value_name("DIR"),
      "write RUN.yaml of each run, a file for the .eval_results folder of its model's repository");
  add("json", file(), "write all results and comparisons as JSON");
  add("baseline", po::value<std::string>()->value_name("DIR"),
      "the run to compare with (default: the only float run, or a comparison's base)");
  add("margin", po::value<double>()->value_name("POINTS")->default_value(1),
      "runs count as equivalent where tests show that their accuracies differ by less than so many points");
  add("paper", "set the MobileQuant paper's figures beside these");
  add("no-examples", "leave out the questions whose answers changed, which are text of the data set");
  add("recompute", "derive every metric again from the samples files, and fail where one differs");
  return options;
}

/// Prints what differs between results.json and the samples; whether nothing does.
bool agrees(const fs::path& folder) {
  const eval::Recomputed recomputed = eval::recompute(folder);
  for (const std::string& difference : recomputed.differences) std::cout << "  " << difference << '\n';
  if (recomputed.differences.empty()) std::cout << "  every metric follows from the samples\n";
  return recomputed.differences.empty();
}

/// The runs as plain tables; with --recompute also whether they follow from their samples.
void show(const reports::SourceList& sources, bool tables, bool recompute) {
  bool good = true;
  for (const reports::Source& source : sources.runs) {
    const eval::RunResults& results = source.results;
    if (tables || recompute) {
      std::cout << fmt::format(
          "{}: {}, {} arithmetic, protocol {}{}\n", source.folder.string(), printable(results.model.name),
          printable(results.model.arithmetic), printable(results.protocol),
          results.add_bos_token.empty() ? "" : ", add-bos-token " + printable(results.add_bos_token));
    }
    if (tables) std::cout << '\n' << eval::render_table(results) << '\n';
    if (recompute) good = agrees(source.folder) && good;
  }
  if (!good) fail("the samples give other metrics than results.json holds: see above");
}

reports::Outputs outputs_of(const po::variables_map& arguments) {
  const auto path = [&](const char* option) -> std::optional<fs::path> {
    const auto text = optional<std::string>(arguments, option);
    if (!text) return {};
    if (text->empty()) throw UsageError(fmt::format("--{}: the name of a file is expected", option));
    return fs::path(*text);
  };
  return {.markdown = path("output"),
          .html = path("html"),
          .csv = path("csv"),
          .latex = path("latex"),
          .json = path("json"),
          .card = path("card"),
          .evaluation_results = path("eval-results")};
}

void announce(const reports::Report& report, const reports::Outputs& outputs) {
  for (const std::string& sentence : report.verdict) std::cout << sentence << '\n';
  std::cout << '\n';
  if (const std::string plot = reports::terminal_plot(report); !plot.empty()) std::cout << plot << '\n';
  for (const auto& output : {outputs.markdown, outputs.html, outputs.csv, outputs.latex, outputs.json,
                             outputs.card, outputs.evaluation_results}) {
    if (output) std::cout << "Report: " << output->string() << '\n';
  }
}

int run_report(const po::variables_map& arguments) {
  if (arguments.count("folder") == 0) throw UsageError("which results? name at least one folder");
  std::vector<fs::path> folders;
  for (const std::string& folder : arguments["folder"].as<std::vector<std::string>>())
    folders.emplace_back(folder);
  const reports::Outputs outputs = outputs_of(arguments);
  const bool writes = outputs.markdown || outputs.html || outputs.csv || outputs.latex || outputs.json ||
                      outputs.card || outputs.evaluation_results;
  reports::BuildOptions options;
  if (const auto baseline = optional<std::string>(arguments, "baseline")) options.baseline = *baseline;
  options.paper = arguments.count("paper") != 0;
  options.margin = in_range("margin", arguments["margin"].as<double>(), 0.01, 50.0) / 100;
  options.examples = outputs.html.has_value() && arguments.count("no-examples") == 0;
  if (!writes) {
    for (const char* option : {"baseline", "margin", "paper", "no-examples"}) {
      if (arguments.count(option) != 0 && !arguments[option].defaulted())
        throw UsageError(fmt::format(
            "--{} needs a report to write: -o FILE, --html, --csv, --latex, --card, --eval-results or --json",
            option));
    }
  }
  reports::SourceList sources = reports::read_sources(folders);
  show(sources, !writes, arguments.count("recompute") != 0);
  if (!writes) return 0;
  std::vector<fs::path> result_folders = folders;
  for (const reports::Source& source : sources.runs) result_folders.push_back(source.folder);
  const reports::Report report = reports::build_report(std::move(sources), options);
  reports::write_report(report, outputs, result_folders);
  announce(report, outputs);
  return 0;
}

}  // namespace

const Command report_command{
    .name = "report",
    .summary = "Compare finished results and write the report: Markdown, HTML, CSV, LaTeX",
    .usage = "DIR... [-o FILE.md] [--html FILE] [--baseline DIR] [options]",
    .example = "qeval report results/fp results/w8a8 -o report.md --html report.html",
    .options = report_options,
    .run = run_report,
    .positional = "folder",
};

}  // namespace qeval::cli
