#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "eval/tasks/task.h"

namespace qeval::eval {

/// A name for several tasks that may have a mean of its own.
struct Group {
  std::string name = {};
  std::string description = {};
  std::vector<std::string> tasks = {};  ///< members, by name
  std::vector<std::string> metrics =
      {};                ///< what is averaged over the members; empty: the group only selects
  bool weighted = true;  ///< the headline mean is weighted by the members' sizes; else unweighted
  /// Examples that members have where they are selected by the group and no other number is asked for.
  std::map<std::string, int64_t> num_fewshot = {};
};

/// What `-t` asks for.
struct Selection {
  std::vector<Task> tasks;  ///< each once, in the order first named
  std::vector<Group>
      groups;  ///< those named, and those inside them (mmlu brings mmlu_stem, …); members all selected
};

/// Every built-in task and group as `protocol` has them. A new task is one entry in eval/tasks/builtin.cc.
std::vector<Task> builtin_tasks(Protocol protocol = Protocol::lm_eval_0_4);
std::vector<Group> builtin_groups(Protocol protocol = Protocol::lm_eval_0_4);

/// Reads a comma-separated list of task names, group names, wildcards over task names (`mmlu_*`; `*` any
/// text, `?` one character; tasks that generate, and other forms of a task, only where no other matches) and
/// paths of description files (ending in .json, see docs/adding-a-task.md). Throws UsageError for a name that
/// is unknown, listing the names near it, for a wildcard that matches nothing, and for an empty list.
Selection resolve_tasks(std::string_view selection, Protocol protocol = Protocol::lm_eval_0_4);

}  // namespace qeval::eval
