#include "eval/tasks/registry.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/glob.h"
#include "base/near_names.h"
#include "base/unicode.h"
#include "eval/tasks/user_task.h"

namespace qeval::eval {
namespace {

class Resolver {
 public:
  explicit Resolver(Protocol protocol) : tasks_(builtin_tasks(protocol)), groups_(builtin_groups(protocol)) {}

  void add(std::string_view item) {
    if (item.ends_with(".json")) return add_user_task(item);
    if (item.find_first_of("*?") != std::string_view::npos) return add_matching(item);
    if (const Task* task = find(tasks_, item)) return add_task(*task);
    if (const Group* group = find(groups_, item)) return add_group(*group);
    std::vector<std::string> names;
    for (const Task& task : tasks_) names.push_back(task.name);
    for (const Group& group : groups_) names.push_back(group.name);
    const std::vector<std::string> near = near_names(item, names);
    const std::string hint = near.empty() ? "" : fmt::format("near names: {}; ", fmt::join(near, ", "));
    throw UsageError(fmt::format(
        "unknown task \"{}\"; {}`qeval tasks` lists all, and a path that ends in .json describes a task of "
        "your own",
        printable(item), hint));
  }

  Selection take() { return std::move(selection_); }

 private:
  template <typename Named>
  static const Named* find(const std::vector<Named>& all, std::string_view name) {
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Named& one) { return one.name == name; });
    return found == all.end() ? nullptr : &*found;
  }

  void add_task(const Task& task) {
    if (find(selection_.tasks, task.name) == nullptr) selection_.tasks.push_back(task);
  }

  void add_group(const Group& group) {
    const auto contains = [&](const std::string& task) {
      return std::find(group.tasks.begin(), group.tasks.end(), task) != group.tasks.end();
    };
    for (const std::string& name : group.tasks) {
      Task task = *find(tasks_, name);
      if (const auto found = group.num_fewshot.find(name); found != group.num_fewshot.end())
        task.num_fewshot = found->second;
      add_task(task);
    }
    for (const Group& inner : groups_) {
      const bool is_inside =
          inner.name == group.name || (!inner.metrics.empty() && inner.tasks.size() < group.tasks.size() &&
                                       std::all_of(inner.tasks.begin(), inner.tasks.end(), contains));
      if (is_inside && find(selection_.groups, inner.name) == nullptr) selection_.groups.push_back(inner);
    }
  }

  void add_matching(std::string_view pattern) {
    if (!add_matching(pattern, false) && !add_matching(pattern, true))
      throw UsageError(fmt::format("no task matches \"{}\"; `qeval tasks` lists all", printable(pattern)));
  }

  /// Of the tasks that generate or are other forms of a task, or of all others; whether there was any.
  bool add_matching(std::string_view pattern, bool others) {
    bool any = false;
    for (const Task& task : tasks_) {
      const bool is_other = task.scoring == Scoring::generation || task.variant;
      if (is_other != others || !glob_matches(pattern, task.name)) continue;
      add_task(task);
      any = true;
    }
    return any;
  }

  void add_user_task(std::string_view path) {
    Task task = read_user_task(std::filesystem::path(path));
    if (find(tasks_, task.name) != nullptr || find(groups_, task.name) != nullptr) {
      fail("{}: field \"name\": \"{}\" is a built-in name; choose another", printable(path, 4096), task.name);
    }
    // Two files of one name would share a samples file.
    if (find(selection_.tasks, task.name) != nullptr) {
      fail("{}: field \"name\": \"{}\" is the name of two tasks in this run", printable(path, 4096),
           task.name);
    }
    selection_.tasks.push_back(std::move(task));
  }

  std::vector<Task> tasks_;
  std::vector<Group> groups_;
  Selection selection_;
};

}  // namespace

Selection resolve_tasks(std::string_view selection, Protocol protocol) {
  Resolver resolver(protocol);
  bool any = false;
  while (!selection.empty()) {
    const size_t comma = selection.find(',');
    const std::string_view item = strip(selection.substr(0, comma));
    if (!item.empty()) {
      resolver.add(item);
      any = true;
    }
    selection.remove_prefix(comma == std::string_view::npos ? selection.size() : comma + 1);
  }
  if (!any) throw UsageError("no task named; `qeval tasks` lists all");
  return resolver.take();
}

}  // namespace qeval::eval
