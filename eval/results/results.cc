#include "eval/results/results.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "eval/results/checked_sum.h"

namespace qeval::eval {
namespace {

template <typename Items>
auto find_by_name(Items& items, std::string_view name) {
  const auto found =
      std::ranges::find(items, name, [](const auto& item) { return std::string_view(item.name); });
  return found == items.end() ? nullptr : &*found;
}

/// The tasks among `names` and below the groups among them, each once, in order: groups may share tasks, and
/// a file may have groups that contain each other. What has no results is kept.
std::vector<std::string> tasks_below(const RunResults& run, const std::vector<std::string>& names) {
  std::vector<std::string> out, open(names.rbegin(), names.rend());
  std::set<std::string> seen;
  while (!open.empty()) {
    const std::string name = std::move(open.back());
    open.pop_back();
    if (!seen.insert(name).second) continue;
    const GroupResults* group = run.find_task(name) == nullptr ? run.find_group(name) : nullptr;
    if (group == nullptr) {
      out.push_back(name);
    } else {
      open.insert(open.end(), group->members.rbegin(), group->members.rend());
    }
  }
  return out;
}

}  // namespace

const MetricValue* TaskResults::find(std::string_view metric_name) const {
  return find_by_name(metrics, metric_name);
}
const MetricValue* GroupResults::find(std::string_view metric_name) const {
  return find_by_name(metrics, metric_name);
}
const TaskResults* RunResults::find_task(std::string_view name) const {
  return find_by_name(tasks, name);
}
const GroupResults* RunResults::find_group(std::string_view name) const {
  return find_by_name(groups, name);
}

int64_t RunResults::tokens_requested() const {
  int64_t total = 0;
  for (const TaskResults& task : tasks) add_count(total, task.counts.tokens_requested);
  return total;
}

int64_t RunResults::tokens_computed() const {
  int64_t total = 0;
  for (const TaskResults& task : tasks) add_count(total, task.tokens_computed);
  return total;
}

std::vector<std::string> tasks_of(const RunResults& run, const std::string& task_or_group) {
  return tasks_below(run, {task_or_group});
}

TaskResults make_task_results(std::string name, std::span<const Scores> documents,
                              const BootstrapOptions& bootstrap) {
  TaskResults task;
  task.name = std::move(name);
  task.metrics = compute_metrics(documents, bootstrap);
  task.counts = count(documents);
  task.logits_hash = logits_hash(documents);
  return task;
}

std::string logits_hash(std::span<const Scores> documents) {
  Sha256 hash;
  for (const Scores& document : documents) hash.update(document.logits_hash);
  return hash.hex().substr(0, 16);
}

GroupResults make_group_results(const RunResults& run, std::string name, std::vector<std::string> members,
                                const std::vector<std::string>& aggregated, bool weighted) {
  std::vector<const TaskResults*> tasks;
  for (const std::string& task : tasks_below(run, members)) {
    tasks.push_back(run.find_task(task));
    if (tasks.back() == nullptr) fail("group {}: member {} has no results", printable(name), printable(task));
  }

  GroupResults group{std::move(name), std::move(members), {}, 0, weighted};
  for (const TaskResults* task : tasks) add_count(group.documents, task->counts.documents);
  for (const std::string& metric : aggregated) {
    std::vector<GroupMember> values;
    for (const TaskResults* task : tasks) {
      const MetricValue* value = task->find(metric);
      if (value == nullptr)
        fail("group {}: task {} has no metric {}", printable(group.name), printable(task->name),
             printable(metric));
      values.push_back({value->value, value->standard_error, task->counts.documents});
    }
    for (MetricValue& value : aggregate_group(metric, values)) group.metrics.push_back(std::move(value));
  }
  return group;
}

std::vector<std::string> aggregated_metrics(const GroupResults& group) {
  std::vector<std::string> out;
  for (const MetricValue& metric : group.metrics) {
    if (document_metric(metric.name) == metric.name) out.push_back(metric.name);
  }
  return out;
}

void write_results(const std::filesystem::path& directory, const RunResults& run) {
  qeval::create_directories(directory);
  const std::filesystem::path path = directory / results_file;
  write_file_atomically(path, dump_json(to_json(run), path.string(), 2) + "\n");
}

RunResults read_results(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / results_file;
  return run_results_from_json(parse_ordered_json(read_file(path), path.string()), path.string());
}

}  // namespace qeval::eval
