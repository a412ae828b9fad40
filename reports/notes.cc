#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "reports/format.h"
#include "reports/stages.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

std::string name(const std::string& text) {
  return clean(text, 60);
}

void add_list(const char* opening, const std::vector<std::string>& items, const char* end,
              std::vector<std::string>& out) {
  if (items.empty()) return;
  constexpr size_t most = 8;
  std::string list;
  for (size_t i = 0; i < std::min(items.size(), most); ++i) list += (i > 0 ? ", " : "") + items[i];
  if (items.size() > most) list += fmt::format(" and {} more", items.size() - most);
  out.push_back(opening + list + end);
}

void about_documents(const Report& report, std::vector<std::string>& out) {
  std::vector<std::string> partial, few;
  for (const TaskProtocol& task : report.protocol.tasks) {
    if (task.documents < task.original_documents)
      partial.push_back(fmt::format("{} ({} of {})", name(task.task), count_text(task.documents),
                                    count_text(task.original_documents)));
  }
  add_list("Of these sets not all documents were scored: ", partial,
           ". Such scores can be compared within this report, not with published ones.", out);
  constexpr int64_t enough = 30;
  for (const Column& column : report.columns) {
    if (column.documents < enough)
      few.push_back(fmt::format("{} ({})", name(column.title), column.documents));
  }
  add_list("Fewer than 30 documents: ", few, ". Their standard errors and intervals are rough.", out);
}

void about_runs(const SourceList& sources, const Report& report, std::vector<std::string>& out) {
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const std::string label = clean(report.rows[i].label, 80);
    for (const eval::TaskResults& task : sources.runs[i].results.tasks) {
      const eval::TaskCounts& counts = task.counts;
      if (counts.not_a_number > 0)
        out.push_back(fmt::format("{}, {}: the model gave no number for {} of {} documents.", label,
                                  name(task.name), count_text(counts.not_a_number),
                                  count_text(counts.documents)));
      if (i == 0 && counts.truncated_requests > 0)
        out.push_back(fmt::format("{}: {} requests were cut on the left to fit {} tokens.", name(task.name),
                                  count_text(counts.truncated_requests), report.protocol.max_length));
      if (i == 0 && counts.encoded_apart > 0)
        out.push_back(fmt::format(
            "{}: in {} requests a token spans the join, so context and continuation were encoded apart.",
            name(task.name), count_text(counts.encoded_apart)));
    }
  }
}

void about_comparisons(const Report& report, std::vector<std::string>& out) {
  if (!report.has_baseline) return;
  std::vector<std::string> missing;
  for (const Row& row : report.rows) {
    for (size_t c = 0; c < report.columns.size(); ++c) {
      if (!row.cells[c]) missing.push_back(clean(row.label, 80) + " lacks " + name(report.columns[c].title));
    }
  }
  add_list("", missing, ".", out);
  // The smallest p that the bootstrap can give must survive Holm's correction, or nothing ever would.
  const double smallest = 2.0 / (1.0 + report.protocol.comparison_resamples);
  const bool perplexities =
      std::ranges::any_of(report.columns, [](const Column& column) { return column.unit != Unit::fraction; });
  if (perplexities && smallest * static_cast<double>(report.comparisons) >= 0.05) {
    out.push_back(
        fmt::format("{} resamples give no p below {:.4f}: with {} comparisons a difference of perplexity "
                    "cannot become significant.",
                    count_text(report.protocol.comparison_resamples), smallest, report.comparisons));
  }
}

void about_machines(const Report& report, std::vector<std::string>& out) {
  const Row& first = report.rows.front();
  const auto differs = [&](auto member) {
    return std::ranges::any_of(report.rows, [&](const Row& row) { return row.*member != first.*member; });
  };
  if (differs(&Row::cpu) || differs(&Row::cpu_path) || differs(&Row::threads))
    out.emplace_back(
        "The runs were made on different processors or numbers of threads: their speeds cannot be compared.");
  if (differs(&Row::version) || differs(&Row::commit))
    out.emplace_back("The runs were made by different versions of qeval.");
}

}  // namespace

std::vector<std::string> notes(const SourceList& sources, const Report& report) {
  std::vector<std::string> out;
  std::vector<std::string> unfinished;
  for (const std::string& run : sources.unfinished) unfinished.push_back(clean(run, 80));
  add_list("Not finished, so not in this report: ", unfinished, ".", out);
  about_documents(report, out);
  about_comparisons(report, out);
  about_runs(sources, report, out);
  about_machines(report, out);
  const bool hashes_differ = std::ranges::any_of(sources.runs, [&](const Source& source) {
    return source.results.tokenizer_hash != report.protocol.tokenizer_hash;
  });
  if (hashes_differ)
    out.emplace_back("The runs' tokenizer files differ; the token ids that were compared do not.");
  return out;
}

}  // namespace qeval::reports
