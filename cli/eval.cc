#include <algorithm>
#include <array>
#include <iostream>

#include "base/error.h"
#include "cli/arithmetics.h"
#include "cli/command.h"
#include "cli/evaluate.h"
#include "cli/evaluation_options.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "eval/results/table.h"
#include "eval/tasks/registry.h"

namespace qeval::cli {
namespace {

po::options_description eval_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_task_options(options);
  auto add = options.add_options();
  add("output,o", po::value<std::string>()->value_name("DIR"),
      "folder for results.json and samples_TASK.jsonl (default: print the table only)");
  add("resume", "continue a run that was interrupted in the output folder");
  add("seed", po::value<uint64_t>()->value_name("N")->default_value(1234), "seed of the few-shot draw");
  add("keep-logprobs",
      "keep the 256 likeliest tokens of every scored position (2 KiB each), so that other runs can be "
      "compared with this one by --base; of several --arithmetic, all keep them instead of the first only; "
      "of "
      "tasks that generate nothing is kept, their texts are compared");
  add("base", po::value<std::string>()->value_name("DIR"),
      "results of the same tasks with --keep-logprobs: also measure how far the model's predictions are from "
      "theirs (KL divergence, top-1 agreement), or its texts, where tasks generate");
  add("shard", po::value<std::string>()->value_name("I/N"),
      "score only the I-th of N shares of the documents, for `qeval merge` (1/N to N/N, a folder each)");
  add("plan",
      "load and check everything, the output folder included, print what would be computed, and stop");
  add("log-samples", "accepted for compatibility: an output folder always gets the samples");
  add_scoring_options(options, true);
  return options;
}

void print_task_plan(const eval::Evaluation& evaluation) {
  std::cout << fmt::format("{:<34} {:>10} {:>16} {:>15} {:>6} {:>20}\n", "task", "documents",
                           "tokens requested", "computed", "ratio", "scored");
  for (const eval::Evaluation::TaskPlan& plan : evaluation.plan()) {
    std::cout << fmt::format("{:<34} {:>10} {:>16} {:>15} {:>6.3f} {:>20}\n", plan.task, plan.documents,
                             plan.tokens_requested, plan.tokens_computed,
                             static_cast<double>(plan.tokens_computed) /
                                 static_cast<double>(std::max<int64_t>(1, plan.tokens_requested)),
                             plan.generates ? fmt::format("{} new at most", plan.tokens_scored)
                                            : fmt::format("{}", plan.tokens_scored));
  }
}

/// One arithmetic: the table, and the difference from --base.
void run_one(const eval::SessionOptions& session_options, const eval::EvaluationOptions& options) {
  const eval::RunResults results = evaluate(session_options, options);
  if (!options.peers.is_first()) return;
  if (options.shard) {
    int64_t documents = 0;
    for (const eval::TaskResults& task : results.tasks) documents += task.counts.documents;
    std::cout << fmt::format("Shard {}: {} documents in {}\nqeval merge puts all {} together.\n",
                             name(*options.shard), documents, options.output->string(), options.shard->count);
    return;
  }
  std::cout << eval::render_table(results);
  if (options.base) {
    const eval::ComparedRun base{options.base->string(), *options.base, eval::read_results(*options.base)};
    print_comparison(eval::compare_runs(base, {{results.model.name, *options.output, results}}));
  }
  if (options.output)
    std::cout << fmt::format("\nResults: {}\n", (*options.output / eval::results_file).string());
}

/// What every single run of several arithmetics has on its command line.
std::string shared_arguments(const po::variables_map& arguments) {
  constexpr std::array<std::string_view, 9> kOwn{
      "arithmetic", "kv-type", "output", "resume", "keep-logprobs", "base", "shard", "plan", "log-samples"};
  const po::options_description all = eval_options();
  std::vector<const char*> names;
  for (const auto& option : all.options()) {
    const std::string& name = option->long_name();
    if (std::ranges::find(kOwn, name) == kOwn.end()) names.push_back(name.c_str());
  }
  return repeated(arguments, names);
}

void plan(const eval::SessionOptions& session_options, const eval::EvaluationOptions& options) {
  eval::Session session(session_options);
  eval::Evaluation evaluation(session, options);
  evaluation.check_folder();
  print_task_plan(evaluation);
}

/// What --keep-logprobs does not do.
void warn_of_texts(const eval::EvaluationOptions& options) {
  if (!options.keep_logprobs || !options.peers.is_first()) return;
  std::string names;
  for (const eval::Task& task : eval::resolve_tasks(options.tasks, options.protocol).tasks) {
    if (task.generation) names += (names.empty() ? "" : ", ") + task.name;
  }
  if (names.empty()) return;
  std::cerr << fmt::format(
      "qeval: warning: --keep-logprobs keeps nothing of tasks that generate ({}): of them runs are compared "
      "by their "
      "texts\n",
      names);
}

int run_eval(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  const eval::EvaluationOptions options = run_options(arguments, limit);
  warn_of_texts(options);
  const std::vector<std::string> names = arithmetics(arguments);
  const eval::SessionOptions session = session_options(arguments);
  const bool plans = arguments.count("plan") != 0;
  if (names.size() > 1) {
    const Arithmetics several(names, session, options, shared_arguments(arguments));
    if (!plans) {
      several.run();
      return 0;
    }
    several.check();
    plan(several.session(several.base()), several.evaluation(several.base()));
    return 0;
  }
  if (plans) {
    plan(session, options);
  } else {
    run_one(session, options);
  }
  return 0;
}

}  // namespace

const Command eval_command{
    .name = "eval",
    .summary = "Score a model on tasks",
    .usage = "-m MODEL -t TASKS [-d DATA] [-o OUT] [options]",
    .example = "qeval eval -m model.gguf -t sample",
    .options = eval_options,
    .run = run_eval,
    .shared = true,
};

}  // namespace qeval::cli
