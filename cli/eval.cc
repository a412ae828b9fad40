#include <csignal>
#include <iostream>

#include "base/error.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/progress.h"
#include "eval/evaluation.h"
#include "eval/results/table.h"

namespace qeval::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void on_signal(int) {
  interrupted = 1;
}

po::options_description options() {
  po::options_description options("Options");
  add_model_options(options);
  auto add = options.add_options();
  add("tasks,t", po::value<std::string>()->value_name("TASKS"),
      "comma-separated tasks, groups, wildcards or description files (.json); `qeval tasks` lists them");
  add("data,d", po::value<std::string>()->value_name("DIR")->default_value("data"),
      "folder of task data: DIR/TASK/SPLIT.jsonl");
  add("output,o", po::value<std::string>()->value_name("DIR"),
      "folder for results.json and samples_TASK.jsonl (default: print the table only)");
  add("resume", "continue a run that was interrupted in the output folder");
  add("num-fewshot", po::value<int64_t>()->value_name("N")->default_value(0),
      "examples in front of each prompt");
  add("split", po::value<std::string>()->value_name("NAME"), "score this split instead of the task's own");
  add("limit", po::value<std::string>()->value_name("N"),
      "first N documents of a task, or a fraction below 1 of them");
  add("seed", po::value<uint64_t>()->value_name("N")->default_value(1234), "seed of the few-shot draw");
  add("plan", "load and check everything, print what would be computed, and stop");
  add("log-samples", "accepted for compatibility: an output folder always gets the samples");
  add_scoring_options(options);
  return options;
}

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

eval::EvaluationOptions evaluation_options(const po::variables_map& arguments, const ThreadLimit& limit) {
  eval::EvaluationOptions options;
  options.tasks = require(arguments, "tasks");
  options.protocol = protocol(arguments);
  options.prefix = prefix_token(arguments);
  options.load.data = arguments["data"].as<std::string>();
  options.load.split = optional<std::string>(arguments, "split");
  options.load.num_fewshot = arguments["num-fewshot"].as<int64_t>();
  if (options.load.num_fewshot < 0) throw UsageError("--num-fewshot must be 0 or more");
  options.load.seed = arguments["seed"].as<uint64_t>();
  options.load.limit = parse_limit(arguments);
  options.limit = optional<std::string>(arguments, "limit").value_or("");
  options.batch_tokens = batch_tokens(arguments);
  if (const auto output = optional<std::string>(arguments, "output")) options.output = *output;
  options.resume = arguments.count("resume") != 0;
  if (options.resume && !options.output) throw UsageError("--resume needs the output folder: -o DIR");
  if (arguments.count("log-samples") != 0 && !options.output) throw UsageError("--log-samples needs -o DIR");
  options.command = command_line();
  options.version = QEVAL_VERSION;
  options.threads = limit.threads();
  return options;
}

void print_plan(const eval::Evaluation& evaluation) {
  std::cout << fmt::format("{:<34} {:>10} {:>16} {:>15} {:>6}\n", "task", "documents", "tokens requested",
                           "computed", "ratio");
  for (const eval::Evaluation::TaskPlan& plan : evaluation.plan()) {
    std::cout << fmt::format("{:<34} {:>10} {:>16} {:>15} {:>6.3f}\n", plan.task, plan.documents,
                             plan.tokens_requested, plan.tokens_computed,
                             static_cast<double>(plan.tokens_computed) /
                                 static_cast<double>(std::max<int64_t>(1, plan.tokens_requested)));
  }
}

int run(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  eval::EvaluationOptions options = evaluation_options(arguments, limit);
  eval::Session session(session_options(arguments));
  eval::Evaluation evaluation(session, options);
  for (const std::string& warning : evaluation.warnings()) std::cerr << "qeval: warning: " << warning << '\n';
  if (arguments.count("plan") != 0) {
    print_plan(evaluation);
    return 0;
  }
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  {
    Progress progress;
    while (!evaluation.done()) {
      const auto state = evaluation.progress();
      progress.update(state.task, state.tokens_done, state.tokens_total);
      if (interrupted != 0) {
        progress.clear();
        fail("interrupted with {} documents finished{}", evaluation.documents_finished(),
             options.output ? "; the same command with --resume continues" : "");
      }
      evaluation.step();
    }
  }
  const eval::RunResults results = evaluation.finish();
  std::cout << eval::render_table(results);
  if (options.output)
    std::cout << fmt::format("\nResults: {}\n", (*options.output / eval::results_file).string());
  return 0;
}

}  // namespace

const Command eval_command{
    .name = "eval",
    .summary = "Score a model on tasks",
    .usage = "-m MODEL -t TASKS [-d DATA] [-o OUT] [options]",
    .example = "qeval eval -m model.gguf -t sample",
    .options = options,
    .run = run,
};

}  // namespace qeval::cli
