#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "reports/format.h"
#include "reports/stages.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

const Difference* difference_at(const Row& row, size_t column) {
  return row.cells[column] && row.cells[column]->difference ? &*row.cells[column]->difference : nullptr;
}

/// The column by which methods are ranked: the first perplexity, −1 without one.
ptrdiff_t perplexity_column(const Report& report) {
  const auto found = std::ranges::find(report.columns, Unit::perplexity, &Column::unit);
  return found == report.columns.end() ? -1 : found - report.columns.begin();
}

std::string points(double delta) {
  return delta_text(delta, Unit::fraction) + " points";
}

/// "+2.9 % perplexity on WikiText"
std::string perplexity_part(const Report& report, const Row& row) {
  const ptrdiff_t column = perplexity_column(report);
  if (column < 0) return {};
  const Difference* difference = difference_at(row, static_cast<size_t>(column));
  if (difference == nullptr) return {};
  const Column& what = report.columns[static_cast<size_t>(column)];
  const std::string title = clean(what.title, 60);
  if (!std::isfinite(difference->delta)) return fmt::format("perplexity on {} is no number", title);
  std::string out =
      fmt::format("{} perplexity on {}", delta_text(difference->delta, Unit::perplexity), title);
  if (difference->significance == 0 && difference->delta != 0) out += " (not significant)";
  return out;
}

struct TaskCounts {
  int64_t tested = 0, lost = 0, gained = 0;
  std::string lost_names, gained_names;
  double undetected = 0;  ///< the largest loss that the intervals of the rest still hold
};

void count_task(const Column& column, const Difference& difference, TaskCounts& counts) {
  if (std::isnan(difference.p)) return;  // not tested
  ++counts.tested;
  const std::string name = clean(column.title, 60) + " " + points(difference.delta);
  if (difference.significance > 0 && difference.worse) {
    counts.lost_names += (counts.lost++ > 0 ? ", " : "") + name;
  } else if (difference.significance > 0) {
    counts.gained_names += (counts.gained++ > 0 ? ", " : "") + name;
  } else if (difference.interval) {
    counts.undetected = std::max(counts.undetected, -difference.interval->low);
  }
}

std::string tasks_part(const TaskCounts& counts) {
  if (counts.tested == 0) return {};
  std::string out;
  const char* tasks = counts.tested == 1 ? "task" : "tasks";
  if (counts.lost == 0) {
    out = counts.tested == 1
              ? "no significant loss on the task"
              : fmt::format("no significant loss on {} of {} {}", counts.tested, counts.tested, tasks);
  } else {
    out = fmt::format("significant loss on {} of {} {} ({})", counts.lost, counts.tested, tasks,
                      counts.lost_names);
  }
  if (counts.gained > 0)
    out += fmt::format(", significant gain on {} ({})", counts.gained, counts.gained_names);
  if (counts.lost + counts.gained < counts.tested && counts.undetected > 0) {
    out += fmt::format("; losses of up to {} points{} are not ruled out",
                       score_text(counts.undetected, Unit::fraction), counts.lost > 0 ? " elsewhere" : "");
  }
  return out;
}

std::string row_sentence(const Report& report, const Row& row) {
  TaskCounts counts;
  bool all_zero = true, any = false;
  for (size_t c = 0; c < report.columns.size(); ++c) {
    const Difference* difference = difference_at(row, c);
    if (difference == nullptr) continue;
    any = true;
    all_zero = all_zero && difference->delta == 0 && difference->lost == 0 && difference->gained == 0;
    if (report.columns[c].unit == Unit::fraction) count_task(report.columns[c], *difference, counts);
  }
  const std::string label = clean(row.label, 80);
  if (!any) return label + ": shares no task with the baseline.";
  if (all_zero) return label + ": equal to the baseline in every score.";
  std::string out = perplexity_part(report, row);
  const std::string tasks = tasks_part(counts);
  if (!tasks.empty()) out += (out.empty() ? "" : ", ") + tasks;
  if (out.empty()) out = "no difference could be tested";
  return label + ": " + out + ".";
}

/// What methods are ranked by: the increase of perplexity, or without one the mean loss over all tasks that
/// the row shares with the baseline. Nothing where that is not known, or is no number.
std::optional<double> loss_of(const Report& report, const Row& row) {
  if (row.is_baseline) return {};
  double sum = 0;
  int64_t count = 0;
  const ptrdiff_t perplexity = perplexity_column(report);
  for (size_t c = 0; c < report.columns.size(); ++c) {
    const bool counts =
        perplexity >= 0 ? std::cmp_equal(c, perplexity) : report.columns[c].unit == Unit::fraction;
    const Difference* difference = counts ? difference_at(row, c) : nullptr;
    if (counts && difference == nullptr) return {};
    if (difference == nullptr) continue;
    sum += perplexity >= 0 ? difference->delta : -difference->delta;
    ++count;
  }
  if (count == 0 || !std::isfinite(sum)) return {};
  return sum / static_cast<double>(count);
}

/// Per scheme with several methods: which one loses least, and the next.
std::vector<std::string> best_of_schemes(const Report& report) {
  std::vector<std::string> schemes, out;
  for (const Row& row : report.rows) {
    if (!row.is_baseline && !row.scheme.empty() && std::ranges::find(schemes, row.scheme) == schemes.end())
      schemes.push_back(row.scheme);
  }
  const bool by_perplexity = perplexity_column(report) >= 0;
  for (const std::string& scheme : schemes) {
    std::vector<std::pair<double, const Row*>> ranked;
    for (const Row& row : report.rows) {
      const std::optional<double> loss = row.scheme == scheme ? loss_of(report, row) : std::nullopt;
      if (loss) ranked.emplace_back(*loss, &row);
    }
    std::ranges::stable_sort(ranked, {}, &std::pair<double, const Row*>::first);
    const auto same_method = [&](const auto& entry) {  // the same in another arithmetic is no rival
      return entry.second->method == ranked[0].second->method &&
             entry.second->variant == ranked[0].second->variant;
    };
    const auto next = std::ranges::find_if_not(ranked, same_method);
    if (next == ranked.end()) continue;
    const auto text = [&](double loss) {
      return by_perplexity ? delta_text(loss, Unit::perplexity) : points(-loss);
    };
    out.push_back(fmt::format("{} at {}: {} ({}; next {}, {}).",
                              by_perplexity ? "Smallest increase of perplexity" : "Best mean of the tasks",
                              clean(scheme, 40), clean(ranked[0].second->label, 80), text(ranked[0].first),
                              clean(next->second->label, 80), text(next->first)));
  }
  return out;
}

std::string single_sentence(const Report& report) {
  const Row& row = report.rows.front();
  std::string out;
  for (size_t c = 0; c < report.columns.size(); ++c) {
    if (!row.cells[c]) continue;
    const Unit unit = report.columns[c].unit;
    const std::string error = error_text(row.cells[c]->standard_error, row.cells[c]->value, unit);
    out += fmt::format("{}{} {}{}{}", out.empty() ? "" : ", ", clean(report.columns[c].title, 60),
                       score_text(row.cells[c]->value, unit), error.empty() ? "" : " " + error,
                       unit == Unit::fraction ? " %" : "");
  }
  if (out.empty()) return clean(row.label, 80) + ": no task was scored.";
  return clean(row.label, 80) + ": " + out + ". One run: there is nothing to compare it with.";
}

}  // namespace

std::vector<std::string> verdict(const Report& report) {
  if (!report.has_baseline) return {single_sentence(report)};
  std::vector<std::string> out = best_of_schemes(report);
  for (const Row& row : report.rows) {
    if (!row.is_baseline) out.push_back(row_sentence(report, row));
  }
  return out;
}

}  // namespace qeval::reports
