#include "reports/build.h"

#include <algorithm>

#include "base/error.h"
#include "base/setting.h"
#include "reports/stages.h"

namespace qeval::reports {
namespace {

namespace fs = std::filesystem;

bool same_folder(const fs::path& a, const fs::path& b) {
  std::error_code code;
  return a.lexically_normal() == b.lexically_normal() || (fs::equivalent(a, b, code) && !code);
}

std::string folders_of(std::span<const Source> sources) {
  std::string out;
  for (const Source& source : sources) out += (out.empty() ? "" : ", ") + source.folder.string();
  return out;
}

/// Index of the baseline; −1 for a single run.
ptrdiff_t find_baseline(std::span<const Source> sources, const std::optional<fs::path>& wanted) {
  std::vector<ptrdiff_t> bases, floats;
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto index = static_cast<ptrdiff_t>(i);
    if (wanted && same_folder(*wanted, sources[i].folder)) return index;
    if (sources[i].is_base) bases.push_back(index);
    if (sources[i].results.model.arithmetic == "float" && sources[i].method.empty()) floats.push_back(index);
  }
  if (wanted)
    fail("{} {}: not among the runs of the report ({})", setting("baseline"), wanted->string(),
         printable(folders_of(sources), 400));
  if (sources.size() == 1) return -1;
  if (bases.size() == 1) return bases.front();
  if (floats.size() == 1) return floats.front();
  fail("{} of the {} runs are float runs: name the one to compare with by {} DIR ({})", floats.size(),
       sources.size(), setting("baseline"), printable(folders_of(sources), 400));
}

/// The baseline first; then by scheme, each where it first occurs, in the order given.
void sort_rows(ptrdiff_t baseline, std::vector<Source>& sources) {
  if (baseline > 0) std::rotate(sources.begin(), sources.begin() + baseline, sources.begin() + baseline + 1);
  std::vector<std::string> schemes;
  for (const Source& source : sources) {
    if (std::ranges::find(schemes, source.scheme) == schemes.end()) schemes.push_back(source.scheme);
  }
  std::ranges::stable_sort(
      sources.begin() + (baseline >= 0 ? 1 : 0), sources.end(), {},
      [&](const Source& source) { return std::ranges::find(schemes, source.scheme) - schemes.begin(); });
}

/// `known` with the report's labels and in its order; nothing where it is of other runs.
std::optional<eval::Comparison> arranged(const eval::Comparison& known, const Report& report,
                                         std::span<const Source> sources) {
  if (known.runs.size() + 1 != sources.size() || !same_folder(known.base.directory, sources[0].folder))
    return {};
  eval::Comparison out{known.base, {}, {}, {}};
  out.base.name = report.rows[0].label;
  for (size_t i = 1; i < sources.size(); ++i) {
    const auto found = std::ranges::find_if(
        known.runs, [&](const auto& run) { return same_folder(run.directory, sources[i].folder); });
    if (found == known.runs.end()) return {};
    const auto index = static_cast<size_t>(found - known.runs.begin());
    out.runs.push_back({report.rows[i].label, found->directory, found->results});
    out.differences.push_back(known.differences[index]);
    for (eval::HeadlineTest test : known.tests) {
      if (test.run != index) continue;
      test.run = i - 1;
      out.tests.push_back(std::move(test));
    }
  }
  return out;
}

eval::Comparison compare(const Report& report, std::span<const Source> sources,
                         const eval::Comparison* known) {
  if (known != nullptr) {
    if (auto out = arranged(*known, report, sources)) return std::move(*out);
  }
  const auto compared = [&](size_t i) {
    return eval::ComparedRun{report.rows[i].label, sources[i].folder, sources[i].results};
  };
  std::vector<eval::ComparedRun> runs;
  for (size_t i = 1; i < sources.size(); ++i) runs.push_back(compared(i));
  return eval::compare_runs(compared(0), std::move(runs), report.protocol.bootstrap);
}

}  // namespace

Report build_report(SourceList list, const BuildOptions& options) {
  if (list.runs.empty()) fail("no results to report on: at least one folder expected");
  const ptrdiff_t baseline = find_baseline(list.runs, options.baseline);
  sort_rows(baseline, list.runs);
  Report report;
  report.margin = options.margin;
  lay_out(list.runs, report);
  report.has_baseline = baseline >= 0;
  report.rows.front().is_baseline = report.has_baseline;
  if (list.runs.size() > 1) {
    const eval::Comparison* known = options.comparison;
    if (known == nullptr && list.comparison) known = &*list.comparison;
    const eval::Comparison comparison = compare(report, list.runs, known);
    add_differences(comparison, report);
    add_nearness(list, comparison, report);
    if (options.examples) add_examples(list.runs, comparison, report);
    report.comparison = eval::to_json(comparison);
  } else {
    report.comparison = {
        {"base", {{"name", report.rows[0].label}, {"results", eval::to_json(list.runs[0].results)}}},
        {"runs", nlohmann::ordered_json::array()},
        {"tests", nlohmann::ordered_json::array()}};
  }
  report.verdict = verdict(report);
  report.notes = notes(list, report);
  if (options.paper) report.paper = paper_tables(report);
  return report;
}

}  // namespace qeval::reports
