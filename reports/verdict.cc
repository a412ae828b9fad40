#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "eval/results/equivalence.h"
#include "eval/results/statistics.h"
#include "reports/format.h"
#include "reports/stages.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

const Difference* difference_at(const Row& row, size_t column) {
  return row.cells[column] && row.cells[column]->difference ? &*row.cells[column]->difference : nullptr;
}

std::string label(const Row& row) {
  return clean(row.label, 80);
}

/// The first few items, separated by `between`, and how many more there are.
std::string listed(const std::vector<std::string>& items, const char* between, size_t most) {
  std::string out;
  for (size_t i = 0; i < std::min(items.size(), most); ++i) out += (i > 0 ? between : "") + items[i];
  if (items.size() > most) out += fmt::format("{}and {} more", between, items.size() - most);
  return out;
}

/// A divergence with two digits that differ from 0.
std::string nats(double value) {
  if (value == 0 || !std::isfinite(value)) return fmt::format("{:g}", value);
  const int digits = std::max(0, 1 - static_cast<int>(std::floor(std::log10(std::abs(value)))));
  return fmt::format("{:.{}f}", value, std::min(digits, 12));
}

std::string with_interval(const eval::Estimate& kl) {
  if (!kl.interval) return nats(kl.value);
  return fmt::format("{} ({} – {})", nats(kl.value), nats(kl.interval->low), nats(kl.interval->high));
}

/// The rows that were measured, the nearest first.
std::vector<const Row*> by_nearness(const Report& report) {
  std::vector<const Row*> out;
  for (const Row& row : report.rows) {
    if (row.nearness) out.push_back(&row);
  }
  std::ranges::stable_sort(out, {}, [](const Row* row) { return row->nearness->kl.value; });
  return out;
}

/// What each scheme costs: its nearest run. Runs without a scheme stand for themselves.
std::string costs(const Report& report, const std::vector<const Row*>& ranked) {
  std::vector<std::string> schemes, items;
  for (const Row* row : ranked) {
    if (!row->scheme.empty()) {
      if (std::ranges::find(schemes, row->scheme) != schemes.end()) continue;
      schemes.push_back(row->scheme);
    }
    items.push_back(label(*row) + " " + with_interval(row->nearness->kl));
  }
  const bool several = items.size() < ranked.size();
  return fmt::format("Divergence from {} on {}, KL in nats{}: {}.", label(report.rows.front()),
                     report.nearness_of, several ? ", the nearest run of each scheme" : "",
                     listed(items, "; ", 8));
}

std::string best(const std::vector<const Row*>& ranked) {
  std::vector<std::string> tied;
  for (const Row* row : ranked) {
    if (row != ranked.front() && row->nearness->tied) tied.push_back(label(*row));
  }
  std::string out = "Nearest: " + label(*ranked.front());
  if (!tied.empty()) return out + "; tied with it: " + listed(tied, ", ", 6) + ".";
  if (ranked.front()->nearness->kl.interval)
    return out + ", and no other run is tied with it (paired intervals, 95 % together).";
  return out + ".";
}

/// What methods are ranked by where no divergence is known: the increase of perplexity.
std::string by_perplexity(const Report& report) {
  const auto column = std::ranges::find(report.columns, Unit::perplexity, &Column::unit);
  if (column == report.columns.end()) return {};
  const auto c = static_cast<size_t>(column - report.columns.begin());
  std::vector<std::pair<double, std::string>> items;
  for (const Row& row : report.rows) {
    const Difference* difference = difference_at(row, c);
    if (difference == nullptr) continue;
    std::string text = label(row) + " " + delta_text(difference->delta, Unit::perplexity);
    if (difference->interval) {
      text += fmt::format(" ({} to {})", delta_text(difference->interval->low, Unit::perplexity),
                          delta_text(difference->interval->high, Unit::perplexity));
    }
    items.emplace_back(std::isfinite(difference->delta) ? difference->delta : INFINITY, std::move(text));
  }
  if (items.empty()) return {};
  std::ranges::stable_sort(items, {}, &std::pair<double, std::string>::first);
  std::vector<std::string> texts;
  for (auto& [loss, text] : items) texts.push_back(std::move(text));
  return fmt::format("Perplexity on {} against {}: {}.", clean(column->title, 60), label(report.rows.front()),
                     listed(texts, "; ", 8));
}

/// What methods are ranked by where only answers are known: accuracy over all documents of all tasks.
std::string by_accuracy(const Report& report) {
  std::vector<std::pair<double, std::string>> items;
  for (const Row& row : report.rows) {
    if (!row.pooled) continue;
    const eval::PairedDifference difference =
        eval::paired_proportions(row.pooled->lost, row.pooled->gained, row.pooled->documents);
    std::string text = label(row) + " " + delta_text(difference.delta, Unit::fraction);
    if (difference.interval) {
      text += fmt::format(" ({} to {})", delta_text(difference.interval->low, Unit::fraction),
                          delta_text(difference.interval->high, Unit::fraction));
    }
    items.emplace_back(-difference.delta, std::move(text));
  }
  if (items.empty()) return {};
  std::ranges::stable_sort(items, {}, &std::pair<double, std::string>::first);
  std::vector<std::string> texts;
  for (auto& [loss, text] : items) texts.push_back(std::move(text));
  return fmt::format("Points of accuracy against {}, over all tasks' documents: {}.",
                     label(report.rows.front()), listed(texts, "; ", 8));
}

/// Losses and gains that Holm's test finds, over all runs and tasks.
std::string significant(const Report& report) {
  std::vector<std::string> lost, gained;
  int64_t tested = 0;
  for (const Row& row : report.rows) {
    for (size_t c = 0; c < report.columns.size(); ++c) {
      const Difference* difference = difference_at(row, c);
      if (difference == nullptr || std::isnan(difference->p)) continue;
      ++tested;
      if (difference->significance == 0) continue;
      const Unit unit = report.columns[c].unit;
      (difference->worse ? lost : gained)
          .push_back(fmt::format("{} on {} ({}{})", label(row), clean(report.columns[c].title, 60),
                                 delta_text(difference->delta, unit),
                                 unit == Unit::fraction ? " points" : ""));
    }
  }
  if (tested == 0) return {};
  std::string out = lost.empty()
                        ? fmt::format("No significant loss in {} comparison{} of tasks (5 %, Holm)", tested,
                                      tested == 1 ? "" : "s")
                        : fmt::format("Significant losses in {} of {} comparison{} of tasks (5 %, Holm): {}",
                                      lost.size(), tested, tested == 1 ? "" : "s", listed(lost, ", ", 6));
  if (!gained.empty()) out += "; significant gains: " + listed(gained, ", ", 4);
  return out + ".";
}

std::string points(double margin) {
  return fmt::format("{:g} point{}", 100 * margin, margin == 0.01 ? "" : "s");
}

std::string equivalence(const Report& report) {
  std::vector<std::string> shown;
  int64_t pooled = 0;
  for (const Row& row : report.rows) {
    if (!row.pooled) continue;
    ++pooled;
    if (row.pooled->equivalent) shown.push_back(label(row));
  }
  if (pooled == 0) return {};
  const std::string margin = "±" + points(report.margin);
  if (shown.empty())
    return fmt::format("No run has been shown to be equal in accuracy within {} (TOST, 5 %).", margin);
  return fmt::format("Shown to be equal in accuracy within {}, over all tasks' documents: {} (TOST, 5 %).",
                     margin, listed(shown, ", ", 8));
}

/// What losses these documents would have missed, at the largest share of flips among the runs.
std::string untold(const Report& report) {
  int64_t documents = 0;
  double flips = 0;
  for (const Row& row : report.rows) {
    if (!row.pooled) continue;
    documents = std::max(documents, row.pooled->documents);
    flips = std::max(flips, static_cast<double>(row.pooled->lost + row.pooled->gained) /
                                static_cast<double>(row.pooled->documents));
  }
  if (documents == 0) return {};
  const double least = eval::detectable_loss(documents, flips);
  std::string out = fmt::format(
      "{} documents cannot detect losses of accuracy below {} points (80 % power, up to {:.1f} % of the "
      "answers flip)",
      count_text(documents), score_text(least, Unit::fraction), 100 * flips);
  const int64_t needed = eval::documents_to_detect(report.margin, flips);
  if (needed > documents)
    out += fmt::format("; {} would take {} documents", points(report.margin), count_text(needed));
  return out + ".";
}

/// Rows that equal the baseline in all that was scored.
std::string equal_rows(const Report& report) {
  std::vector<std::string> equal;
  for (const Row& row : report.rows) {
    bool any = false, all_zero = true;
    for (size_t c = 0; c < report.columns.size(); ++c) {
      const Difference* difference = difference_at(row, c);
      if (difference == nullptr) continue;
      any = true;
      all_zero = all_zero && difference->delta == 0 && difference->lost == 0 && difference->gained == 0;
    }
    const bool same = !row.nearness || row.nearness->kl.value == 0;
    if (!row.is_baseline && any && all_zero && same) equal.push_back(label(row));
  }
  return equal.empty() ? "" : listed(equal, ", ", 6) + ": equal to the baseline in every score.";
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
  std::vector<std::string> out;
  const auto add = [&out](std::string line) {
    if (!line.empty()) out.push_back(std::move(line));
  };
  const std::vector<const Row*> ranked = by_nearness(report);
  const std::string equal = equal_rows(report);
  if (!ranked.empty()) {
    add(costs(report, ranked));
    add(ranked.size() > 1 ? best(ranked) : equal);
  } else {
    const std::string perplexity = by_perplexity(report);
    add(perplexity.empty() ? by_accuracy(report) : perplexity);
    add(equal);
  }
  add(significant(report));
  add(equivalence(report));
  add(untold(report));
  return out;
}

}  // namespace qeval::reports
