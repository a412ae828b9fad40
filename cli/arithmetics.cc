#include "cli/arithmetics.h"

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/shell.h"
#include "cli/evaluate.h"
#include "eval/describe_model.h"
#include "eval/results/folder_use.h"
#include "eval/results/table.h"

namespace qeval::cli {

using eval::FolderUse;

Arithmetics::Arithmetics(std::vector<std::string> names, eval::SessionOptions session,
                         eval::EvaluationOptions evaluation, std::string arguments)
    : names_(std::move(names)),
      session_(std::move(session)),
      evaluation_(std::move(evaluation)),
      arguments_(std::move(arguments)) {
  if (!evaluation_.output)
    throw UsageError("--arithmetic with several names needs the output folder: -o DIR");
  if (evaluation_.base)
    throw UsageError("--base: not used with several --arithmetic, which are compared with the first");
  if (evaluation_.shard) throw UsageError("--shard: one --arithmetic at a time");
  if (session_.precision != "f32") throw UsageError("--precision: one --arithmetic at a time");
  if (const auto found = std::ranges::find(names_, "float"); found != names_.end())
    std::rotate(names_.begin(), found, found + 1);
}

eval::SessionOptions Arithmetics::session(const std::string& name) const {
  eval::SessionOptions options = session_;
  options.arithmetic = name;
  return options;
}

eval::EvaluationOptions Arithmetics::evaluation(const std::string& name) const {
  eval::EvaluationOptions options = evaluation_;
  options.output = folder(name);
  options.command = command(name);
  if (name == base()) {
    options.keep_logprobs = true;  // what the others are compared with
  } else {
    options.base = folder(base());
  }
  return options;
}

std::string Arithmetics::command(const std::string& name) const {
  const bool is_base = name == base();
  return fmt::format("qeval eval {} --arithmetic {}{}{} -o {}", arguments_, name,
                     is_base || evaluation_.keep_logprobs ? " --keep-logprobs" : "",
                     is_base ? "" : " --base " + shell_quoted(folder(base()).string()),
                     shell_quoted(folder(name).string()));
}

std::unique_ptr<eval::Session> Arithmetics::open(const std::string& name) const {
  const eval::SessionOptions options = session(name);
  if (!model_) model_ = std::make_shared<eval::LoadedModel>(options.model, options.gptq_zeros);
  return std::make_unique<eval::Session>(options, model_);
}

eval::ComparisonFile Arithmetics::check() const {
  require_use(*evaluation_.output, FolderUse::arithmetics);
  eval::ComparisonFile file{base(), {}};
  for (const std::string& name : names_) {
    require_use(folder(name), FolderUse::run);
    const std::unique_ptr<const eval::Session> loaded = open(name);
    eval::ModelInfo model;
    model.arithmetic = loaded->arithmetic().name();
    model.details = to_json(describe_model(*loaded));
    file.entries.push_back(describe_entry(model, loaded->model().path.string()));
    file.entries.back().name = file.entries.back().results = name;
    file.entries.back().commands = {command(name)};
  }
  return file;
}

std::unique_ptr<DirectoryLock> Arithmetics::begin(const eval::ComparisonFile& file) const {
  const std::filesystem::path& output = *evaluation_.output;
  qeval::create_directories(output);
  auto lock = std::make_unique<DirectoryLock>(output);
  require_use(output, FolderUse::arithmetics);
  std::error_code code;
  if (!std::filesystem::exists(output / eval::comparison_file, code)) write_comparison_file(output, file);
  return lock;
}

void Arithmetics::run() const {
  const Peers& peers = evaluation_.peers;
  eval::ComparisonFile file;
  together(peers, [&] { file = check(); });
  std::unique_ptr<DirectoryLock> lock;
  on_first(peers, [&] { lock = begin(file); });
  std::vector<eval::ComparedRun> runs;
  std::optional<eval::EncodedTasks> tasks;
  for (const std::string& name : names_) {
    const eval::EvaluationOptions options = evaluation(name);
    std::unique_ptr<eval::Session> session;
    std::optional<eval::Evaluation> prepared;
    together(peers, [&] {
      session = open(name);
      if (!tasks) tasks = encode_tasks(*session, options);
      prepared.emplace(*session, options, *tasks);
    });
    if (name == names_.back()) tasks.reset();
    runs.push_back({name, folder(name), carry_out(*prepared, options)});
    if (!peers.is_first()) continue;
    std::cout << fmt::format("{}{} arithmetic\n\n", runs.size() > 1 ? "\n" : "", name)
              << eval::render_table(runs.back().results) << std::flush;
  }
  if (!peers.is_first()) return;
  const eval::ComparedRun first = runs.front();
  runs.erase(runs.begin());
  const eval::Comparison comparison = eval::compare_runs(first, std::move(runs));
  print_comparison(comparison);
  eval::write_comparison(*evaluation_.output, file, comparison);
  std::cout << fmt::format("\nResults: {}\n", (*evaluation_.output / eval::results_file).string());
}

}  // namespace qeval::cli
