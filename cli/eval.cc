#include <algorithm>
#include <array>
#include <iostream>

#include "base/error.h"
#include "cli/command.h"
#include "cli/evaluation_options.h"
#include "cli/interrupt.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "cli/progress.h"
#include "cli/ranks.h"
#include "eval/evaluation.h"
#include "eval/matrix.h"
#include "eval/results/comparison_file.h"
#include "eval/results/comparison_table.h"
#include "eval/results/model_details.h"
#include "eval/results/table.h"

namespace qeval::cli {
namespace {

po::options_description options() {
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
      "compared "
      "with this one by --base");
  add("base", po::value<std::string>()->value_name("DIR"),
      "results of the same tasks with --keep-logprobs: also measure how far the model's predictions are from "
      "theirs (KL divergence, top-1 agreement)");
  add("shard", po::value<std::string>()->value_name("I/N"),
      "score only the I-th of N shares of the documents, for `qeval merge` (1/N to N/N, a folder each)");
  add("plan", "load and check everything, print what would be computed, and stop");
  add("log-samples", "accepted for compatibility: an output folder always gets the samples");
  add_scoring_options(options, true);
  return options;
}

eval::EvaluationOptions evaluation_options(const po::variables_map& arguments, const ThreadLimit& limit) {
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

/// "fake,integer" as a list; one empty name where nothing was asked for.
std::vector<std::string> arithmetics(const po::variables_map& arguments) {
  const std::string text = optional<std::string>(arguments, "arithmetic").value_or("");
  return text.empty() ? std::vector<std::string>{""} : split_list(text);
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

eval::RunResults evaluate(const eval::SessionOptions& session_options,
                          const eval::EvaluationOptions& options) {
  std::optional<eval::Session> session;
  std::optional<eval::Evaluation> prepared;
  together(options.peers, [&] {
    session.emplace(session_options);
    prepared.emplace(*session, options);
  });
  eval::Evaluation& evaluation = *prepared;
  evaluation.begin();
  for (const std::string& warning : evaluation.warnings()) std::cerr << "qeval: warning: " << warning << '\n';
  catch_interrupts();
  Progress progress;
  while (!evaluation.done()) {
    const auto state = evaluation.progress();
    progress.update(state.task, state.tokens_done, state.tokens_total);
    if (interrupted()) {
      progress.clear();
      if (!options.peers.alone())
        fail(
            "interrupted; the finished documents are kept: the same command with --resume continues on any "
            "number of ranks");
      fail("interrupted with {} documents finished{}", evaluation.documents_finished(),
           options.output ? "; the same command with --resume continues" : "");
    }
    evaluation.step();
  }
  return evaluation.finish();
}

void print_comparison(const eval::Comparison& comparison) {
  std::cout << fmt::format("\nAgainst {}:\n\n", printable(comparison.base.name))
            << eval::render_comparison(comparison);
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

/// Several: a folder each below the output folder, and their comparison with the first of them; float, where
/// it is among them, goes first.
void run_several(std::vector<std::string> names, eval::SessionOptions session_options,
                 eval::EvaluationOptions options) {
  if (!options.output) throw UsageError("--arithmetic with several names needs the output folder: -o DIR");
  if (options.base)
    throw UsageError("--base: not used with several --arithmetic, which are compared with the first");
  if (options.shard) throw UsageError("--shard: one --arithmetic at a time");
  if (session_options.precision != "f32") throw UsageError("--precision: one --arithmetic at a time");
  if (const auto found = std::ranges::find(names, "float"); found != names.end())
    std::rotate(names.begin(), found, found + 1);
  const std::filesystem::path folder = *options.output;
  std::optional<DirectoryLock> lock;
  on_first(options.peers, [&] {
    // What is replaced at the end is the comparison of an earlier such run, never another run's results.
    qeval::create_directories(folder);
    lock.emplace(folder);
    std::error_code code;
    const auto holds = [&](const char* name) { return std::filesystem::exists(folder / name, code); };
    if ((holds(eval::results_file) && !holds(eval::comparison_file)) || holds("run.json") ||
        holds(eval::matrix_file)) {
      fail("{}: holds the results of another run; accepted: a new folder, or one of such a comparison",
           folder.string());
    }
  });
  const std::string model = session_options.model.string();
  eval::ComparisonFile file{names.front(), {}};
  std::vector<eval::ComparedRun> runs;
  for (const std::string& name : names) {
    options.output = folder / name;
    options.keep_logprobs = runs.empty();
    if (!runs.empty()) options.base = folder / names.front();
    session_options.arithmetic = name;
    runs.push_back({name, *options.output, evaluate(session_options, options)});
    if (!options.peers.is_first()) continue;
    std::cout << fmt::format("{}{} arithmetic\n\n", runs.size() > 1 ? "\n" : "", name)
              << eval::render_table(runs.back().results) << std::flush;
    const eval::ModelDetails details = eval::model_details(runs.back().results.model, model);
    file.entries.push_back({name,
                            details.method().empty() ? "fp" : details.method(),
                            details.variant(),
                            details.scheme,
                            name,
                            name,
                            "",
                            {options.command}});
  }
  if (!options.peers.is_first()) return;
  const eval::ComparedRun base = runs.front();
  runs.erase(runs.begin());
  const eval::Comparison comparison = eval::compare_runs(base, std::move(runs));
  print_comparison(comparison);
  eval::write_comparison(folder, file, comparison);
  std::cout << fmt::format("\nResults: {}\n", (folder / eval::results_file).string());
}

int run(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  const eval::EvaluationOptions options = evaluation_options(arguments, limit);
  const std::vector<std::string> names = arithmetics(arguments);
  eval::SessionOptions session = session_options(arguments);
  session.arithmetic = names.front();
  if (arguments.count("plan") != 0) {
    eval::Session loaded(session);
    print_plan(eval::Evaluation(loaded, options));
  } else if (names.size() == 1) {
    run_one(session, options);
  } else {
    run_several(names, session, options);
  }
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
    .shared = true,
};

}  // namespace qeval::cli
