#include "reports/build.h"
#include "reports/render/document.h"
#include "tests/fuzz/made_run.h"
#include "tests/fuzz/support.h"
#include "tests/reports/markup.h"

namespace qeval::fuzz {
namespace {

/// Texts from a run must not become markup: elements that a report never has.
void check_markup(const std::string& html) {
  const reports::Markup markup = reports::parse_markup(html);
  if (!markup.error.empty()) defect("HTML that is not well-formed", markup.error);
  size_t scripts = 0;
  for (const auto& element : markup.elements) {
    scripts += element.name == "script" ? 1 : 0;
    for (const std::string_view forbidden : {"iframe", "img", "object", "embed", "link", "base", "form"}) {
      if (element.name == forbidden) defect("an element from a run's text", element.name);
    }
    for (const auto& [name, value] : element.attributes) {
      if (name.starts_with("on") || value.starts_with("javascript:"))
        defect("an attribute from a run's text", value);
    }
  }
  if (scripts > 1) defect("a script from a run's text", html.substr(0, 400));
}

}  // namespace

void report(Input input) {
  const auto [results, rest] = split(text_of(input));
  const auto [samples, second] = split(rest);
  if (!write_run("base", results, samples)) return;
  std::vector<std::filesystem::path> folders{scratch() / "base"};
  reports::BuildOptions options{.baseline = folders.front(), .paper = true};
  if (!second.empty()) {
    const auto [other_results, other_samples] = split(second);
    if (write_run("other", other_results, other_samples)) folders.push_back(scratch() / "other");
  }
  accepted([&] {
    const reports::Report report = reports::build_report(reports::read_sources(folders), options);
    const reports::Document document = reports::make_document(report);
    (void)reports::to_markdown(document, "report");
    (void)reports::to_latex(report);
    (void)reports::to_csv(report);
    (void)reports::to_json_text(report);
    check_markup(reports::to_html(document, report));
    for (const reports::Section& section : document.sections) {
      for (const reports::Plot& plot : section.plots) {
        const std::string name = reports::plot_file("report", plot);
        if (name.find('/') != std::string::npos) defect("a plot's file leads elsewhere", name);
      }
    }
  });
}

}  // namespace qeval::fuzz
