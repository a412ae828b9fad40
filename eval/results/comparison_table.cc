#include "eval/results/comparison_table.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "base/error.h"
#include "eval/results/table.h"

namespace qeval::eval {
namespace {

bool is_relative(std::string_view metric) {
  return metric.ends_with("perplexity");
}

/// A difference as it is shown: relative for perplexities, whose differences are logarithmic.
std::string difference_text(std::string_view metric, double delta) {
  if (!std::isfinite(delta)) return format_score(delta);
  return is_relative(metric) ? fmt::format("{:+.1f} %", 100 * std::expm1(delta))
                             : fmt::format("{:+.4f}", delta);
}

std::string metric_interval_text(std::string_view metric, const std::optional<Interval>& interval) {
  if (!interval) return "–";
  return difference_text(metric, interval->low) + " … " + difference_text(metric, interval->high);
}

std::string p_text(double p) {
  if (std::isnan(p)) return "–";
  return p < 0.001 ? "<0.001" : fmt::format("{:.3f}", p);
}

std::vector<std::string> comparison_row(const std::string& run, const TaskComparison& comparison,
                                        const HeadlineTest& test, const DivergenceSummary* divergence) {
  const auto metric = std::ranges::find(comparison.metrics, test.metric, &MetricComparison::metric);
  const PairedDifference& difference = metric->difference;
  std::vector<std::string> out{printable(run, 40),
                               printable(comparison.task, 40),
                               printable(test.metric, 30),
                               format_score(metric->base),
                               format_score(metric->other),
                               difference_text(test.metric, difference.delta),
                               metric_interval_text(test.metric, difference.interval),
                               p_text(test.adjusted_p),
                               "",
                               "",
                               "",
                               ""};
  if (metric->right_or_wrong) out[8] = fmt::format("−{} +{}", metric->lost.size(), metric->gained.size());
  if (divergence != nullptr) {
    out[9] = format_score(divergence->mean_kl);
    out[10] = format_score(divergence->kl_99);
    out[11] = fmt::format("{:.2f} %", 100 * divergence->top1_agreement);
  }
  return out;
}

/// "0.9500 → 0.8000, p 0.021": a habit of the texts in base and run.
std::string habit_text(const MetricComparison& habit) {
  return fmt::format("{} → {}, p {}", format_score(habit.base), format_score(habit.other),
                     p_text(habit.difference.p_value));
}

/// Of the tasks that generate; empty where there is none.
std::string render_texts(const Comparison& comparison) {
  std::vector<std::vector<std::string>> rows{
      {"run", "task", "texts", "equal", "agreement", "first difference", "ended", "free of loops", "tokens"}};
  for (size_t run = 0; run < comparison.runs.size(); ++run) {
    for (const TaskDifference& task : comparison.differences[run].tasks) {
      if (!task.texts) continue;
      const WrittenTexts& texts = *task.texts;
      std::vector<std::string>& row = rows.emplace_back(std::vector{
          printable(comparison.runs[run].name, 40), printable(task.comparison.task, 40),
          std::to_string(texts.documents), std::to_string(texts.equal), format_score(texts.agreement),
          texts.first_difference ? fmt::format("{}", *texts.first_difference) : "–"});
      for (const MetricComparison& habit : texts.habits) row.push_back(habit_text(habit));
    }
  }
  if (rows.size() == 1) return {};
  return fmt::format("\n{}", render_rows(rows, {false, false, true, true, true, true, true, true, true}));
}

}  // namespace

std::string render_comparison(const Comparison& comparison) {
  std::vector<std::vector<std::string>> rows{{"run", "task", "metric", "base", "value", "Δ", "95 % interval",
                                              "p (Holm)", "flips", "mean KL", "99 % KL", "top-1"}};
  for (const HeadlineTest& test : comparison.tests) {
    const RunDifference& difference = comparison.differences[test.run];
    const std::string& run = comparison.runs[test.run].name;
    if (const TaskDifference* task = difference.find_task(test.name)) {
      rows.push_back(
          comparison_row(run, task->comparison, test, task->divergence ? &*task->divergence : nullptr));
    } else {
      rows.push_back(comparison_row(run, *difference.find_group(test.name), test, nullptr));
    }
  }
  return render_rows(rows, {false, false, false, true, true, true, true, true, true, true, true, true}) +
         render_texts(comparison);
}

}  // namespace qeval::eval
