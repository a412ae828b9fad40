#include "eval/results/headline.h"

#include <algorithm>
#include <set>
#include <utility>

namespace qeval::eval {
namespace {

std::string choose(const std::vector<std::string>& metrics) {
  for (const char* wanted : {"acc_norm", "word_perplexity"}) {
    if (std::ranges::find(metrics, wanted) != metrics.end()) return wanted;
  }
  return metrics.empty() ? "" : metrics.front();
}

using TaskSet = std::set<std::string>;

bool is_proper_subset(const TaskSet& a, const TaskSet& b) {
  return a.size() < b.size() && std::ranges::includes(b, a);
}

}  // namespace

std::string headline_metric(const TaskResults& task) {
  std::vector<std::string> names;
  for (const MetricValue& metric : task.metrics) names.push_back(metric.name);
  return choose(names);
}

std::string headline_metric(const GroupResults& group) {
  std::string metric = choose(aggregated_metrics(group));
  const std::string unweighted = metric + std::string(unweighted_suffix);
  return !group.weighted && group.find(unweighted) != nullptr ? unweighted : metric;
}

std::vector<const GroupResults*> outer_groups(const RunResults& run) {
  std::vector<std::pair<const GroupResults*, TaskSet>> groups;
  for (const GroupResults& group : run.groups) {
    if (group.metrics.empty()) continue;
    const std::vector<std::string> tasks = tasks_of(run, group.name);
    groups.emplace_back(&group, TaskSet(tasks.begin(), tasks.end()));
  }
  std::vector<const GroupResults*> out;
  for (const auto& group : groups) {
    const bool inner = std::ranges::any_of(
        groups, [&](const auto& other) { return is_proper_subset(group.second, other.second); });
    if (!inner) out.push_back(group.first);
  }
  return out;
}

}  // namespace qeval::eval
