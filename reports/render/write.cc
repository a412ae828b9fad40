#include "reports/render/write.h"

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "eval/results/folder_use.h"
#include "reports/render/document.h"

namespace qeval::reports {
namespace {

namespace fs = std::filesystem;

fs::path whole_path(const fs::path& path) {
  std::error_code code;
  fs::path out = fs::weakly_canonical(path, code);
  return code ? path.lexically_normal() : out;
}

bool is_below(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

/// Whether `path`, in a folder of results or below it, is a file of theirs, or would look like one. A report
/// may lie there, and replace an earlier one.
bool is_of_results(const fs::path& path) {
  constexpr std::array<std::string_view, 5> kReports{".md", ".html", ".htm", ".csv", ".tex"};
  const std::string extension = path.extension().string();
  if (eval::is_result_file(path.filename().string()) || extension == ".json" || extension == ".jsonl")
    return true;
  std::error_code code;
  return fs::exists(path, code) && std::ranges::find(kReports, extension) == kReports.end();
}

/// An output in a result folder may not take the name of what the results are made of.
void check_outputs(const Outputs& outputs, std::span<const fs::path> sources) {
  std::set<fs::path> seen, folders;
  for (const fs::path& source : sources) folders.insert(whole_path(source));
  for (const auto* output :
       {&outputs.markdown, &outputs.html, &outputs.csv, &outputs.latex, &outputs.json, &outputs.card}) {
    if (!*output) continue;
    const fs::path path = whole_path(**output);
    if (!path.has_filename() || fs::is_directory(path))
      fail("{}: is a folder; the name of a file is expected", (*output)->string());
    if (!seen.insert(path).second) fail("{}: two outputs have this name", (*output)->string());
    const bool inside =
        std::ranges::any_of(folders, [&](const fs::path& folder) { return is_below(path, folder); });
    if (inside && is_of_results(path))
      fail("{}: would replace a file of the results that are reported; choose another folder",
           (*output)->string());
  }
}

void write(const fs::path& path, std::string_view content) {
  if (path.has_parent_path()) qeval::create_directories(path.parent_path());
  write_file_atomically(path, content);
}

/// Whether a file's name ends as those of our plots do, behind the stem.
bool is_plot(std::string_view name) {
  constexpr std::array<std::string_view, 4> kSingle{"-perplexity.svg", "-layers.svg", "-pareto-size.svg",
                                                    "-pareto-speed.svg"};
  if (std::ranges::find(kSingle, name) != kSingle.end()) return true;
  for (const std::string_view kind : {"-delta-", "-training-"}) {
    if (!name.starts_with(kind) || !name.ends_with(".svg") || name.size() <= kind.size() + 4) continue;
    const std::string_view number = name.substr(kind.size(), name.size() - kind.size() - 4);
    if (number.find_first_not_of("0123456789") == std::string_view::npos) return true;
  }
  return false;
}

void write_plots(const Document& document, const fs::path& markdown) {
  const std::string stem = markdown.stem().string();
  const fs::path folder = markdown.parent_path();
  std::set<std::string> written;
  for (const Section& section : document.sections) {
    for (const Plot& plot : section.plots) {
      const std::string name = plot_file(stem, plot);
      write(folder / name, svg_file(plot));
      written.insert(name);
    }
  }
  std::error_code code;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder.empty() ? "." : folder, code)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(stem) && is_plot(name.substr(stem.size())) && !written.contains(name))
      fs::remove(entry.path(), code);
  }
}

/// A label as the name of a file.
std::string file_name(std::string_view label) {
  std::string out;
  for (const char c : label) {
    const bool usual = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
    const bool capital = c >= 'A' && c <= 'Z';
    if (usual || capital) {
      out += capital ? static_cast<char>(c - 'A' + 'a') : c;
    } else if (!out.empty() && out.back() != '-') {
      out += '-';
    }
  }
  while (!out.empty() && (out.back() == '-' || out.back() == '.')) out.pop_back();
  return out.empty() || out.front() == '.' ? "run" + out : out;
}

void write_evaluation_results(const Report& report, const fs::path& folder) {
  std::error_code code;
  if (fs::exists(folder, code) && !fs::is_directory(folder, code))
    fail("{}: is a file; the name of a folder is expected", folder.string());
  if (eval::folder_use(folder) != eval::FolderUse::none)
    fail("{}: is a folder of results or of a model; choose another directory", folder.string());
  std::set<std::string> names;
  for (const Row& row : report.rows) {
    const std::string text = to_evaluation_results(report, row);
    if (text.empty()) continue;
    const std::string stem = file_name(row.label);
    std::string name = stem;
    for (int i = 2; !names.insert(name).second; ++i) name = fmt::format("{}-{}", stem, i);
    write(folder / (name + ".yaml"), text);
  }
  if (names.empty()) fail("{}: none of the tasks is a data set of the hub", folder.string());
}

}  // namespace

void write_report(const Report& report, const Outputs& outputs, std::span<const fs::path> sources) {
  check_outputs(outputs, sources);
  const Document document = make_document(report);
  if (outputs.json) write(*outputs.json, to_json_text(report));
  if (outputs.csv) write(*outputs.csv, to_csv(report));
  if (outputs.card) write(*outputs.card, to_card(report));
  if (outputs.evaluation_results) write_evaluation_results(report, *outputs.evaluation_results);
  if (outputs.latex) write(*outputs.latex, to_latex(report));
  if (outputs.html) write(*outputs.html, to_html(document, report));
  if (outputs.markdown) {
    write_plots(document, *outputs.markdown);
    write(*outputs.markdown, to_markdown(document, outputs.markdown->stem().string()));
  }
}

}  // namespace qeval::reports
