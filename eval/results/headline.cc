#include "eval/results/headline.h"

#include <algorithm>

namespace qeval::eval {
namespace {

std::string choose(const std::vector<std::string>& metrics) {
  for (const char* wanted : {"acc_norm", "word_perplexity"}) {
    if (std::ranges::find(metrics, wanted) != metrics.end()) return wanted;
  }
  return metrics.empty() ? "" : metrics.front();
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

}  // namespace qeval::eval
