#include "cli/evaluation_options.h"

#include "base/error.h"
#include "cli/chat_options.h"
#include "cli/commit.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "cli/ranks.h"
#include "eval/tasks/generation_settings.h"

namespace qeval::cli {
namespace {

std::optional<double> parse_limit(const po::variables_map& arguments) {
  const auto text = optional<std::string>(arguments, "limit");
  if (!text) return std::nullopt;
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(*text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text->size()) {
    throw UsageError(
        fmt::format("--limit {}: a number of documents, or a fraction below 1", printable(*text)));
  }
  return value;
}

/// What --gen-kwargs says, its values in range for any task.
nlohmann::ordered_json generation_settings(const std::string& text) {
  try {
    nlohmann::ordered_json settings = eval::parse_generation_settings(text);
    std::vector<std::string> unused;  // what a task makes of them is not known yet
    eval::with_settings(eval::Generation{}, settings, unused);
    return settings;
  } catch (const Error& error) {  // which names the option
    throw UsageError(error.what());
  }
}

}  // namespace

void add_task_options(po::options_description& options) {
  auto add = options.add_options();
  add("tasks,t", po::value<std::string>()->value_name("TASKS"),
      "comma-separated tasks, groups, wildcards or description files (.json); `qeval tasks` lists them");
  add("data,d", po::value<std::string>()->value_name("DIR")->default_value("data"),
      "folder of task data: DIR/TASK/SPLIT.jsonl");
  add("num-fewshot", po::value<int64_t>()->value_name("N"),
      "examples in front of each prompt (default: the task's own number, 0 for most)");
  add("split", po::value<std::string>()->value_name("NAME"), "score this split instead of the task's own");
  add("limit", po::value<std::string>()->value_name("N"),
      "first N documents of a task, or a fraction below 1 of them");
  add("gen-kwargs", po::value<std::string>()->value_name("K=V,..."),
      "for tasks that generate, instead of their own settings: until, max_gen_toks, do_sample, temperature, "
      "top_k, "
      "top_p, seed, repeats (texts per document); or a JSON object");
  add("confirm-run-unsafe-code",
      "run the programs that a model writes for humaneval and mbpp, in a sandbox without network");
  add_chat_options(options);
}

eval::EvaluationOptions task_options(const po::variables_map& arguments, const ThreadLimit& limit) {
  eval::EvaluationOptions options;
  options.tasks = require(arguments, "tasks");
  options.protocol = protocol(arguments);
  options.prefix = prefix_token(arguments);
  options.add_bos = add_bos_token(arguments);
  options.load.data = arguments["data"].as<std::string>();
  options.load.split = optional<std::string>(arguments, "split");
  options.load.num_fewshot = optional<int64_t>(arguments, "num-fewshot");
  in_range<int64_t>("num-fewshot", options.load.num_fewshot.value_or(0), 0, int64_t{1} << 20);
  options.load.limit = parse_limit(arguments);
  options.load.run_code = arguments.count("confirm-run-unsafe-code") != 0;
  if (const auto settings = optional<std::string>(arguments, "gen-kwargs"))
    options.generation = generation_settings(*settings);
  options.limit = optional<std::string>(arguments, "limit").value_or("");
  options.load.style.system_instruction = optional<std::string>(arguments, "system-instruction").value_or("");
  options.chat = chat_options(arguments);
  options.batch_tokens = batch_tokens(arguments);
  options.command = command_line();
  options.version = QEVAL_VERSION;
  options.commit = QEVAL_COMMIT;
  options.threads = limit.threads();
  return options;
}

eval::EvaluationOptions run_options(const po::variables_map& arguments, const ThreadLimit& limit) {
  eval::EvaluationOptions options = task_options(arguments, limit);
  options.load.seed = arguments["seed"].as<uint64_t>();
  if (const auto output = optional<std::string>(arguments, "output")) options.output = *output;
  options.resume = arguments.count("resume") != 0;
  options.keep_logprobs = arguments.count("keep-logprobs") != 0;
  if (const auto base = optional<std::string>(arguments, "base")) options.base = *base;
  options.peers = peers();
  if (const auto shard = optional<std::string>(arguments, "shard")) {
    try {
      options.shard = eval::parse_shard(*shard);
    } catch (const Error& error) {
      throw UsageError(std::string("--") + error.what());
    }
    if (!peers().alone())
      throw UsageError("--shard: several ranks split the documents themselves; start shards without mpirun");
  }
  if (!peers().alone() && !options.output && arguments.count("plan") == 0)
    throw UsageError("several ranks need the output folder: -o DIR");
  for (const char* option : {"resume", "log-samples", "keep-logprobs", "base", "shard"}) {
    if (arguments.count(option) != 0 && !options.output)
      throw UsageError(fmt::format("--{} needs the output folder: -o DIR", option));
  }
  return options;
}

}  // namespace qeval::cli
