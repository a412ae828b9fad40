#include <iostream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/model_options.h"
#include "eval/tasks/registry.h"

namespace qeval::cli {
namespace {

po::options_description tasks_options() {
  po::options_description options("Options");
  options.add_options()("json", "as JSON, for programs");
  add_protocol_option(options);
  return options;
}

int run_tasks(const po::variables_map& arguments) {
  const eval::Protocol conventions = protocol(arguments);
  const auto tasks = eval::builtin_tasks(conventions);
  const auto groups = eval::builtin_groups(conventions);
  if (arguments.count("json") != 0) {
    nlohmann::ordered_json out{{"tasks", nlohmann::ordered_json::array()},
                               {"groups", nlohmann::ordered_json::array()}};
    for (const eval::Task& task : tasks) {
      out["tasks"].push_back({{"name", task.name},
                              {"description", task.description},
                              {"folder", task.folder},
                              {"split", task.split},
                              {"version", task.version},
                              {"metrics", task.metrics}});
    }
    for (const eval::Group& group : groups) {
      out["groups"].push_back(
          {{"name", group.name}, {"description", group.description}, {"tasks", group.tasks}});
    }
    std::cout << out.dump(2) << '\n';
    return 0;
  }
  std::cout << "Tasks\n";
  for (const eval::Task& task : tasks) {
    std::cout << fmt::format("  {:<40} {:<11} {}\n", task.name, task.split, task.description);
  }
  std::cout << "\nGroups\n";
  for (const eval::Group& group : groups) {
    std::cout << fmt::format("  {:<40} {} tasks: {}\n", group.name, group.tasks.size(), group.description);
  }
  std::cout << "\nWildcards such as 'mmlu_*' and your own tasks (docs/adding-a-task.md) work as well.\n";
  return 0;
}

}  // namespace

const Command tasks_command{
    .name = "tasks",
    .summary = "The tasks and groups that eval knows",
    .usage = "[--json]",
    .example = "qeval tasks",
    .options = tasks_options,
    .run = run_tasks,
};

}  // namespace qeval::cli
