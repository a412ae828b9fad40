#include "eval/compare/compare_work.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/file.h"
#include "eval/describe_model.h"
#include "eval/results/comparison_file.h"
#include "eval/run_settings.h"
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
      base_session_(std::make_unique<Session>(options_.session, base_)) {
  resolve_given();
  const model::ModelConfig& config = base_->model().config;
  layout_.emplace(options_, config, run_label(*base_session_));
  for (const MadeModel& made : layout_->made()) {
    const quant::QuantizeOptions quantize = layout_->quantize_run(made).options;
    quant::require_apart(quantize, quant::make_qcfg(config, quantize.scheme), config,
                         options_.quantize.samples);
  }
  if (options_.text)
    text_.emplace(
        *options_.text, *base_session_, layout_->base(),
        options_.evaluation.add_bos == AddBos::always ? TextProtocol::qeval_bos : TextProtocol::qeval);
  // Reads all data and prompts: what is missing is missed before the work starts.
  base_tasks_ = encode_tasks(*base_session_, options_.evaluation);
  EvaluationOptions evaluation = options_.evaluation;
  evaluation.output.reset();
  evaluation.base.reset();
  evaluation.keep_logprobs = false;
  evaluation.peers = {};
  planned_ = std::make_unique<Evaluation>(*base_session_, evaluation, base_tasks_);
  for (const auto& task : base_tasks_.tasks) {
    if (!task->task().generation) scored_tokens_ += task->tokens_scored();
  }
  settings_ =
      compare_fingerprint(options_, base_->weight_hash(), planned_->fingerprint(), given_fingerprint());
}

void CompareWork::resolve_given() {
  std::vector<std::string> labels, names;
  for (GivenModel& given : options_.given) {
    std::shared_ptr<LoadedModel>& model = given_[given.path];
    if (!model) model = std::make_shared<LoadedModel>(given.path);
    SessionOptions options = options_.session;
    options.model = given.path;
    options.arithmetic = given.arithmetic;
    Session session(options, model);
    given.arithmetic = session.arithmetic().name();
    labels.push_back(given.label.empty() ? run_label(session) : given.label);
    names.push_back(model->model().name);
    given_identity_.push_back(
        fmt::format("{} {} {}", model->weight_hash(), quantization_hash(session), given.arithmetic));
  }
  labels = distinct_labels(std::move(labels), names);
  for (size_t i = 0; i < labels.size(); ++i) options_.given[i].label = labels[i];
}

Fingerprint CompareWork::given_fingerprint() const {
  Fingerprint print;
  for (size_t i = 0; i < options_.given.size(); ++i)
    print["with " + options_.given[i].label] = given_identity_[i];
  if (text_) print["text"] = text_->identity();
  return print;
}

CompareWork::~CompareWork() = default;

bool CompareWork::first_finds(const std::function<bool()>& check) const {
  bool found = false;
  on_first(peers(), [&] { found = check(); });
  return decided_by_first(peers(), found);
}

void CompareWork::check_folder() const {
  layout_->check_folder(settings_);
}

void CompareWork::open_folder() {
  on_first(peers(), [&] {
    qeval::create_directories(options_.output);
    lock_ = std::make_unique<DirectoryLock>(options_.output);
    check_folder();
    layout_->record(settings_);
    if (text_) text_->resume(options_.output);
  });
}

std::vector<CompareStep> CompareWork::plan(int64_t ranks) {
  if (text_) text_->resume(options_.output);
  const auto best = [&] {
    ComparisonBuilder comparison(read(layout_->base()), {.resamples = 1});
    for (const MadeModel& made : layout_->made()) comparison.add(read(layout_->entry(made, "fake")));
    return layout_->entry(layout_->made().at(nearest_run(comparison.so_far())), "integer");
  };
  return schedule({.options = options_,
                   .layout = *layout_,
                   .evaluation = *planned_,
                   .layers = base_->model().config.num_layers,
                   .costs = measure_costs(*base_session_),
                   .ranks = ranks,
                   .text_tokens = text_ ? text_->tokens() : 0,
                   .text_measured = [&](const std::string& entry) { return text_->is_measured(entry); },
                   .best = best});
}

int64_t CompareWork::disk_bytes() const {
  return compare_disk_bytes(base_->model(), std::ssize(layout_->made()), scored_tokens_);
}

std::shared_ptr<LoadedModel> CompareWork::loaded(const fs::path& model) {
  if (recent_ && recent_path_ == model) return recent_;
  recent_tasks_.reset();
  recent_.reset();
  const auto given = given_.find(model);
  recent_ = given != given_.end() ? given->second : std::make_shared<LoadedModel>(model);
  recent_path_ = model;
  return recent_;
}

SessionOptions CompareWork::session_options(const ComparisonEntry& entry) const {
  SessionOptions session = options_.session;
  session.model = layout_->model(entry);
  session.arithmetic = entry.arithmetic;
  return session;
}

void CompareWork::evaluate(const ComparisonEntry& entry, const CompareObserver& observer) {
  if (first_finds([&] { return layout_->is_evaluated(entry); })) return;
  const StepClock clock("evaluate " + entry.name, observer);
  const bool is_base = entry.name == layout_->base().name;
  EvaluationOptions evaluation = options_.evaluation;
  evaluation.output = layout_->results(entry);
  evaluation.command = entry.commands.back();
  evaluation.keep_logprobs = is_base;
  if (!is_base) evaluation.base = layout_->results(layout_->base());
  std::unique_ptr<Session> own;
  std::optional<Evaluation> prepared;
  together(peers(), [&] {
    if (is_base) {
      prepared.emplace(*base_session_, evaluation, std::move(base_tasks_));
      return;
    }
    const SessionOptions session = session_options(entry);
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
  if (first_finds([&] { return layout_->is_quantized(made); })) return;
  const StepClock clock("quantize " + made.name(), observer);
  const auto show = [&](const std::string& step, int64_t done, int64_t total) {
    observer.progress(fmt::format("{}: {}", made.name(), step), done, total);
  };
  const std::vector<quant::Warning> warnings = quant::quantize_to_folder(
      base_->model(), layout_->quantize_run(made), layout_->checkpoint(made), show, &observations_);
  for (const quant::Warning& warning : warnings)
    observer.warning(made.name() + ": " + quant::one_line(warning));
  clock.finished();
}

ComparedRun CompareWork::read(const ComparisonEntry& entry) const {
  const fs::path folder = layout_->results(entry);
  return {entry.name, folder, read_results(folder)};
}

void CompareWork::measure_text(const std::vector<ComparisonEntry>& entries, const CompareObserver& observer) {
  std::vector<TextRun> runs;
  runs.reserve(entries.size());
  for (const ComparisonEntry& entry : entries) runs.push_back({entry, layout_->model(entry)});
  if (std::ranges::all_of(entries, [&](const auto& entry) { return text_->is_measured(entry.name); })) return;
  const StepClock clock("compare on the text", observer);
  const auto open = [&](const TextRun& run) {
    const auto given = given_.find(run.model);
    const SessionOptions session = session_options(run.entry);
    return given != given_.end() ? std::make_unique<Session>(session, given->second)
                                 : std::make_unique<Session>(session);
  };
  text_->measure(*base_session_, runs, open, options_.output, [&](int64_t done, int64_t total) {
    observer.progress("text: " + text_->results().text.file, done, total);
  });
  clock.finished();
}

const MadeModel& CompareWork::nearest_made(const Comparison& comparison) {
  const size_t first = layout_->given().size();
  if (!text_) return layout_->made().at(nearest_run(comparison, first) - first);
  std::vector<std::string> names;
  for (const MadeModel& made : layout_->made()) names.push_back(layout_->entry(made, "fake").name);
  const std::string nearest = text_->nearest(names);
  return layout_->made().at(static_cast<size_t>(std::ranges::find(names, nearest) - names.begin()));
}

Comparison CompareWork::run(const CompareObserver& observer) {
  planned_.reset();
  ComparisonFile file{"fp", {layout_->base()}};
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
  const auto compare_text = [&] {
    recent_.reset();
    recent_tasks_.reset();
    on_first(peers(), [&] {
      if (text_) measure_text({file.entries.begin() + 1, file.entries.end()}, observer);
    });
  };
  add(file.entries.front());
  for (const ComparisonEntry& entry : layout_->given()) add(entry);
  for (const MadeModel& made : layout_->made()) {
    quantize(made, observer);
    for (const ComparisonEntry& entry : layout_->entries(made)) add(entry);
  }
  if (options_.integer == IntegerRuns::best && !layout_->made().empty()) {
    compare_text();
    std::string name;
    on_first(peers(), [&] { name = nearest_made(comparison->so_far()).name(); });
    name = from_first(peers(), name);
    add(layout_->entry(*std::ranges::find(layout_->made(), name, &MadeModel::name), "integer"));
  }
  compare_text();
  Comparison out;
  on_first(peers(), [&] {
    out = std::move(*comparison).finish();
    if (text_) {
      std::vector<std::string> names;
      for (const ComparisonEntry& entry : file.entries) names.push_back(entry.name);
      text_->write(options_.output, names);
    }
    write_comparison(options_.output, file, out);
  });
  return out;
}

}  // namespace qeval::eval
