#include "eval/compare/compare_work.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/file.h"
#include "eval/results/comparison_file.h"
#include "model/finite.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

/// Tells the observer of a step when it is finished.
class StepClock {
 public:
  StepClock(std::string step, const CompareObserver& observer)
      : step_(std::move(step)), observer_(observer), start_(std::chrono::steady_clock::now()) {}
  void finished() const {
    observer_.finished(step_,
                       std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  }

 private:
  std::string step_;
  const CompareObserver& observer_;
  std::chrono::steady_clock::time_point start_;
};

CompareOptions as_base(CompareOptions options) {
  options.session.arithmetic = "float";
  options.evaluation.resume = true;
  return options;
}

}  // namespace

CompareWork::CompareWork(CompareOptions options)
    : options_(as_base(std::move(options))),
      base_(std::make_shared<LoadedModel>(options_.session.model)),
      base_session_(std::make_unique<Session>(options_.session, base_)),
      layout_(options_, base_->model().config) {
  // Reads all data and prompts: what is missing is missed before the work starts.
  base_tasks_ = encode_tasks(*base_session_, options_.evaluation);
  EvaluationOptions evaluation = options_.evaluation;
  evaluation.output.reset();
  evaluation.base.reset();
  evaluation.keep_logprobs = false;
  evaluation.peers = {};
  planned_ = std::make_unique<Evaluation>(*base_session_, evaluation, base_tasks_);
  for (const Evaluation::TaskPlan& task : planned_->plan()) scored_tokens_ += task.tokens_scored;
  settings_ = compare_fingerprint(options_, base_->weight_hash(), planned_->fingerprint());
}

CompareWork::~CompareWork() = default;

bool CompareWork::first_finds(const std::function<bool()>& check) const {
  bool found = false;
  on_first(peers(), [&] { found = check(); });
  return decided_by_first(peers(), found);
}

void CompareWork::check_folder() const {
  layout_.check_folder(settings_);
}

void CompareWork::open_folder() {
  on_first(peers(), [&] {
    qeval::create_directories(options_.output);
    lock_ = std::make_unique<DirectoryLock>(options_.output);
    check_folder();
    layout_.record(settings_);
  });
}

std::vector<CompareStep> CompareWork::plan(int64_t ranks) {
  const auto best = [&] {
    ComparisonBuilder comparison(read(layout_.base()), {.resamples = 1});
    for (const MadeModel& made : layout_.made()) comparison.add(read(layout_.entry(made, "fake")));
    return layout_.entry(layout_.made().at(nearest_run(comparison.so_far())), "integer");
  };
  return schedule({.options = options_,
                   .layout = layout_,
                   .evaluation = *planned_,
                   .layers = base_->model().config.num_layers,
                   .costs = measure_costs(*base_session_),
                   .ranks = ranks,
                   .best = best});
}

int64_t CompareWork::disk_bytes() const {
  return compare_disk_bytes(base_->model(), std::ssize(layout_.made()), scored_tokens_);
}

std::shared_ptr<LoadedModel> CompareWork::loaded(const fs::path& model) {
  if (recent_ && recent_path_ == model) return recent_;
  recent_tasks_.reset();
  recent_.reset();
  recent_ = std::make_shared<LoadedModel>(model);
  recent_path_ = model;
  return recent_;
}

void CompareWork::evaluate(const ComparisonEntry& entry, const CompareObserver& observer) {
  if (first_finds([&] { return layout_.is_evaluated(entry); })) return;
  const StepClock clock("evaluate " + entry.name, observer);
  const bool is_base = entry.checkpoint.empty();
  EvaluationOptions evaluation = options_.evaluation;
  evaluation.output = layout_.results(entry);
  evaluation.command = entry.commands.back();
  evaluation.keep_logprobs = is_base;
  if (!is_base) evaluation.base = layout_.results(layout_.base());
  std::unique_ptr<Session> own;
  std::optional<Evaluation> prepared;
  together(peers(), [&] {
    if (is_base) {
      prepared.emplace(*base_session_, evaluation, std::move(base_tasks_));
      return;
    }
    SessionOptions session = options_.session;
    session.model = layout_.model(entry);
    session.arithmetic = entry.arithmetic;
    own = std::make_unique<Session>(session, loaded(session.model));
    if (!recent_tasks_) recent_tasks_ = encode_tasks(*own, evaluation);
    prepared.emplace(*own, evaluation, *recent_tasks_);
  });
  Evaluation& run = *prepared;
  run.begin();
  for (const std::string& warning : run.warnings()) observer.warning(entry.name + ": " + warning);
  while (!run.done()) {
    const auto state = run.progress();
    observer.progress(fmt::format("{}: {}", entry.name, state.task), state.tokens_done, state.tokens_total);
    try {
      run.step();
    } catch (const model::NotFinite& error) {  // of which model, it cannot know
      throw model::NotFinite(entry.name + ": " + error.what());
    }
  }
  run.finish();
  clock.finished();
}

void CompareWork::quantize(const MadeModel& made, const CompareObserver& observer) {
  if (first_finds([&] { return layout_.is_quantized(made); })) return;
  const StepClock clock("quantize " + made.name(), observer);
  const auto show = [&](const std::string& step, int64_t done, int64_t total) {
    observer.progress(fmt::format("{}: {}", made.name(), step), done, total);
  };
  const std::vector<quant::Warning> warnings = quant::quantize_to_folder(
      base_->model(), layout_.quantize_run(made), layout_.checkpoint(made), show, &observations_);
  for (const quant::Warning& warning : warnings)
    observer.warning(made.name() + ": " + quant::one_line(warning));
  clock.finished();
}

ComparedRun CompareWork::read(const ComparisonEntry& entry) const {
  const fs::path folder = layout_.results(entry);
  return {entry.name, folder, read_results(folder)};
}

Comparison CompareWork::run(const CompareObserver& observer) {
  planned_.reset();
  ComparisonFile file{"fp", {layout_.base()}};
  std::optional<ComparisonBuilder> comparison;
  const auto add = [&](const ComparisonEntry& entry) {
    evaluate(entry, observer);
    on_first(peers(), [&] {
      if (!comparison) {
        comparison.emplace(read(entry));
      } else {
        file.entries.push_back(entry);
        comparison->add(read(entry));
      }
    });
  };
  add(file.entries.front());
  for (const MadeModel& made : layout_.made()) {
    quantize(made, observer);
    for (const ComparisonEntry& entry : layout_.entries(made)) add(entry);
  }
  if (options_.integer == IntegerRuns::best && !layout_.made().empty()) {
    size_t index = 0;  // only their fake runs are there yet
    on_first(peers(), [&] { index = nearest_run(comparison->so_far()); });
    add(layout_.entry(layout_.made().at(std::stoul(from_first(peers(), std::to_string(index)))), "integer"));
  }
  Comparison out;
  on_first(peers(), [&] {
    out = std::move(*comparison).finish();
    write_comparison(options_.output, file, out);
  });
  return out;
}

}  // namespace qeval::eval
