#include "eval/distributed/merge.h"

#include <iostream>

#include "base/error.h"
#include "cli/command.h"
#include "eval/results/table.h"

namespace qeval::cli {
namespace {

po::options_description merge_options() {
  po::options_description options("Options");
  auto add = options.add_options();
  add("shards", po::value<std::vector<std::string>>()->value_name("DIR..."),
      "folders of the shards, in any order");
  add("output,o", po::value<std::string>()->value_name("DIR"),
      "folder for the results of the whole run: results.json and samples_TASK.jsonl");
  return options;
}

int run_merge(const po::variables_map& arguments) {
  const auto names = optional<std::vector<std::string>>(arguments, "shards");
  if (!names) throw UsageError("the folders of all shards are required");
  const std::filesystem::path output = require(arguments, "output");
  const std::vector<std::filesystem::path> shards(names->begin(), names->end());
  const eval::Merged merged = eval::merge_shards(shards, output, command_line());
  for (const std::string& warning : merged.warnings) std::cerr << "qeval: warning: " << warning << '\n';
  std::cout << eval::render_table(merged.results)
            << fmt::format("\nResults: {}\n", (output / eval::results_file).string());
  return 0;
}

}  // namespace

const Command merge_command{
    .name = "merge",
    .summary = "Put the shards of a run together",
    .usage = "SHARD_DIR... -o OUT",
    .example = "qeval merge shard-1 shard-2 shard-3 -o results",
    .options = merge_options,
    .run = run_merge,
    .positional = "shards",
};

}  // namespace qeval::cli
