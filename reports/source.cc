#include "reports/source.h"

#include <algorithm>

#include "base/error.h"
#include "base/loose_json.h"
#include "base/setting.h"
#include "eval/results/comparison_file.h"

namespace qeval::reports {

Source make_source(std::filesystem::path folder, eval::RunResults results) {
  Source source;
  source.folder = std::move(folder);
  const auto& details = results.model.details;
  source.scheme = text_or_empty(details, "scheme");
  if (source.scheme == "float") source.scheme.clear();
  if (const auto* quantize = find_field(details, "quantize")) {
    source.method = text_or_empty(*quantize, "method");
    const auto* settings = find_field(*quantize, "settings");
    const auto setting = [&](const char* key) {
      std::string text = text_or_empty(*quantize, key);
      return text.empty() && settings != nullptr ? text_or_empty(*settings, key) : text;
    };
    source.variant = setting("variant");
    if (source.scheme.empty()) source.scheme = setting("scheme");
    if (std::string command = text_or_empty(*quantize, "command"); !command.empty())
      source.commands.push_back(std::move(command));
  }
  if (!results.command.empty()) source.commands.push_back(results.command);
  source.results = std::move(results);
  return source;
}

namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code code;
  return fs::exists(path, code);
}

void add(Source source, SourceList& list) {
  std::error_code code;
  const bool known = std::ranges::any_of(
      list.runs, [&](const Source& other) { return fs::equivalent(other.folder, source.folder, code); });
  if (!known) list.runs.push_back(std::move(source));
}

void add_matrix(const fs::path& folder, SourceList& list) {
  const eval::ComparisonFile comparison = eval::read_comparison_file(folder);
  bool any = false;
  for (const eval::ComparisonEntry& entry : comparison.entries) {
    const fs::path results = folder / entry.results;
    if (!is_there(results / eval::results_file)) {
      list.unfinished.push_back(entry.name);
      continue;
    }
    any = true;
    Source source = make_source(results, eval::read_results(results));
    source.is_base = entry.name == comparison.base;
    source.method = source.is_base || entry.method == "fp" ? "" : entry.method;
    source.name = entry.name;
    source.label = entry.label;
    source.variant = entry.variant;
    source.scheme = entry.scheme;
    if (!entry.commands.empty()) source.commands = entry.commands;
    add(std::move(source), list);
  }
  if (is_there(folder / eval::divergence_results_file) && !list.text)
    list.text = eval::read_divergence_results(folder);
  if (list.unfinished.empty() && !list.comparison)
    list.comparison = eval::read_comparison(folder, comparison);
  if (!any)
    fail("{}: none of the {} runs of {} is finished", folder.string(), comparison.entries.size(),
         eval::comparison_file);
}

}  // namespace

SourceList read_sources(std::span<const fs::path> folders) {
  SourceList out;
  for (const fs::path& folder : folders) {
    if (is_there(folder / eval::comparison_file)) {
      add_matrix(folder, out);
    } else if (is_there(folder / eval::results_file)) {
      add(make_source(folder, eval::read_results(folder)), out);
    } else {
      fail(
          "{}: holds neither {} nor {}: a folder that `qeval eval -o` or `qeval compare -o` wrote is "
          "expected",
          folder.string(), eval::results_file, eval::comparison_file);
    }
  }
  return out;
}

}  // namespace qeval::reports
