#include <cmath>

#include "reports/stages.h"

namespace qeval::reports {
namespace {

int significance_of(double p) {
  if (!(p < 0.05)) return 0;  // NaN is none
  return p < 0.001 ? 3 : p < 0.01 ? 2 : 1;
}

/// Comparisons give the difference of log-perplexities; a report gives the relative increase.
double shown_delta(double delta, Unit unit) {
  return unit == Unit::perplexity ? std::expm1(delta) : delta;
}

Difference make_difference(const eval::MetricComparison& metric, const Column& column) {
  Difference out;
  const eval::PairedDifference& paired = metric.difference;
  out.delta = shown_delta(paired.delta, column.unit);
  if (paired.interval) {
    out.interval = eval::Interval{shown_delta(paired.interval->low, column.unit),
                                  shown_delta(paired.interval->high, column.unit)};
  }
  out.p = out.p_holm = std::nan("");
  out.worse = column.higher_is_better ? out.delta < 0 : out.delta > 0;
  out.has_flips = metric.right_or_wrong;
  out.lost = std::ssize(metric.lost);
  out.gained = std::ssize(metric.gained);
  return out;
}

const eval::TaskComparison* find_comparison(const eval::RunDifference& run, const std::string& name) {
  if (const eval::TaskDifference* task = run.find_task(name)) return &task->comparison;
  return run.find_group(name);
}

const eval::MetricComparison* find_metric(const eval::TaskComparison& comparison, const std::string& name) {
  for (const eval::MetricComparison& metric : comparison.metrics) {
    if (metric.metric == name) return &metric;
  }
  return nullptr;
}

void add_to_cell(const eval::RunDifference& run, const Column& column, const std::optional<Cell>& base,
                 std::optional<Cell>& cell) {
  if (!cell || !base) return;
  const eval::TaskComparison* comparison = find_comparison(run, column.task);
  if (comparison == nullptr) return;
  if (const eval::MetricComparison* metric = find_metric(*comparison, column.metric)) {
    cell->difference = make_difference(*metric, column);
  } else {  // a group's other mean, which does not stand for it: shown, not tested
    Difference untested;
    untested.delta = cell->value - base->value;
    untested.p = untested.p_holm = std::nan("");
    cell->difference = untested;
    cell->difference->worse =
        column.higher_is_better ? cell->difference->delta < 0 : cell->difference->delta > 0;
  }
}

/// Over the tasks of a column that were measured: positions add up, means and shares are weighted by them;
/// the quantile of several tasks is not known from theirs, and the largest stands for it.
std::optional<Divergence> divergence_of(const eval::RunDifference& run, std::span<const std::string> tasks) {
  Divergence out;
  for (const std::string& name : tasks) {
    const eval::TaskDifference* task = run.find_task(name);
    if (task == nullptr || !task->divergence) return {};
    const eval::DivergenceSummary& summary = *task->divergence;
    const auto positions = static_cast<double>(summary.positions);
    out.positions += summary.positions;
    out.mean_kl += summary.mean_kl * positions;
    out.mean_kl_upper += summary.mean_kl_upper * positions;
    out.top1_agreement += summary.top1_agreement * positions;
    out.kl_99 = std::isnan(summary.kl_99) ? summary.kl_99 : std::max(out.kl_99, summary.kl_99);
  }
  if (out.positions == 0) return {};
  const auto positions = static_cast<double>(out.positions);
  out.mean_kl /= positions;
  out.mean_kl_upper /= positions;
  out.top1_agreement /= positions;
  return out;
}

/// Over the tasks of a column, all of which generate.
std::optional<Texts> texts_of(const eval::RunDifference& run, std::span<const std::string> tasks) {
  Texts out;
  int64_t more_unended = 0, less_unended = 0, more_looping = 0, less_looping = 0;
  for (const std::string& name : tasks) {
    const eval::TaskDifference* task = run.find_task(name);
    if (task == nullptr || !task->texts) return {};
    const eval::WrittenTexts& texts = *task->texts;
    const auto documents = static_cast<double>(texts.documents);
    const auto without = [&](double share) { return std::llround((1 - share) * documents); };
    out.documents += texts.documents;
    out.equal += texts.equal;
    out.agreement += texts.agreement * documents;
    if (tasks.size() == 1) out.first_difference = texts.first_difference;
    for (const eval::MetricComparison& habit : texts.habits) {
      if (habit.metric == "tokens") {
        out.base_tokens += habit.base * documents;
        out.tokens += habit.other * documents;
        continue;
      }
      const bool ended = habit.metric == "ended";
      Texts::Habit& here = ended ? out.unended : out.looping;
      here.base += without(habit.base);
      here.here += without(habit.other);
      (ended ? more_unended : more_looping) += std::ssize(habit.lost);
      (ended ? less_unended : less_looping) += std::ssize(habit.gained);
    }
  }
  if (out.documents == 0) return {};
  const auto documents = static_cast<double>(out.documents);
  out.agreement /= documents;
  out.base_tokens /= documents;
  out.tokens /= documents;
  out.unended.p = eval::mcnemar_exact(more_unended, less_unended);
  out.looping.p = eval::mcnemar_exact(more_looping, less_looping);
  return out;
}

}  // namespace

void add_differences(const eval::Comparison& comparison, Report& report) {
  const Row& base = report.rows.front();
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    const eval::RunDifference& run = comparison.differences[i];
    Row& row = report.rows[i + 1];
    for (size_t c = 0; c < report.details.size(); ++c)
      add_to_cell(run, report.details[c], base.details[c], row.details[c]);
    for (size_t c = 0; c < report.columns.size(); ++c) {
      const Column& column = report.columns[c];
      std::optional<Cell>& cell = row.cells[c];
      add_to_cell(run, column, base.cells[c], cell);
      if (!cell) continue;
      const std::vector<std::string> tasks = eval::tasks_of(comparison.base.results, column.task);
      cell->divergence = divergence_of(run, tasks);
      cell->texts = texts_of(run, tasks);
      if (!cell->difference) continue;
      Difference& difference = *cell->difference;
      report.flips += difference.lost + difference.gained;
      const eval::HeadlineTest* test = comparison.find_test(i, column.task);
      if (test == nullptr || test->metric != column.metric) continue;
      difference.p = test->p_value;
      difference.p_holm = test->adjusted_p;
      difference.significance = significance_of(test->adjusted_p);
      report.comparisons += std::isnan(test->p_value) ? 0 : 1;
    }
  }
}

}  // namespace qeval::reports
