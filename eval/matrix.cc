#include "eval/matrix.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/setting.h"
#include "base/shell.h"
#include "base/strict_json.h"
#include "eval/results/folder_use.h"
#include "eval/results/headline.h"
#include "model/finite.h"
#include "quant/checkpoint/checkpoint.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

/// What a pass that observes every point, and a learning step, take of the time of a forward pass over as
/// many tokens (measured on SmolLM2-135M).
constexpr double kObservedCost = 2.0, kLearningCost = 3.0;

std::string with_space(const std::string& arguments) {
  return arguments.empty() ? "" : " " + arguments;
}

/// Tells the observer of a step when it is finished.
class StepClock {
 public:
  StepClock(std::string step, const MatrixObserver& observer)
      : step_(std::move(step)), observer_(observer), start_(std::chrono::steady_clock::now()) {}
  void finished() const {
    observer_.finished(step_,
                       std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  }

 private:
  std::string step_;
  const MatrixObserver& observer_;
  std::chrono::steady_clock::time_point start_;
};

int64_t count_tokens(const quant::Samples& samples) {
  int64_t tokens = 0;
  for (const auto& sample : samples) tokens += std::ssize(sample);
  return tokens;
}

}  // namespace

struct Matrix::Item {
  quant::Method method;
  std::string scheme;

  std::string name() const { return fmt::format("{} {}", quant::name(method), scheme); }
  std::string folder() const { return fmt::format("{}-{}", quant::name(method), scheme); }
};

TokenCosts measure_costs(Session& session) {
  constexpr int64_t kBrief = 128, kLonger = 1024, kTimes = 2;
  const auto measure = [&](int64_t longest) {
    const int64_t length = std::min(longest, session.max_length());
    TokenRequest request;
    for (int64_t i = 0; i <= length; ++i)
      request.tokens.push_back(static_cast<int32_t>(i * 7 % session.model().config.vocab_size));
    request.scored = length / 4 + 1;
    TimedPass pass{static_cast<double>(length), static_cast<double>(request.scored), 0};
    for (int64_t i = 0; i < kTimes; ++i) {  // the first one also reads the weights from the disk
      const std::vector<TokenRequest> requests{request};
      const Plan plan(requests, length, &session.model().config);
      ScoringRun run(session.decoder(), plan);
      const auto start = std::chrono::steady_clock::now();
      while (!run.done()) run.step();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      pass.seconds = i == 0 ? seconds : std::min(pass.seconds, seconds);
    }
    return pass;
  };
  return fit_costs(token_costs(session.model().config), measure(kBrief), measure(kLonger));
}

Matrix::Matrix(MatrixOptions options) : options_(std::move(options)) {
  options_.session.arithmetic = "float";
  options_.evaluation.resume = true;
  base_session_ = std::make_unique<Session>(options_.session);
  for (const std::string& scheme : options_.schemes) {
    const quant::Scheme parsed = quant::parse_scheme(scheme);
    quant::make_qcfg(base_session_->model().config, parsed);
    if (options_.integer != IntegerRuns::none && parsed.activation_bits > 16) {
      throw UsageError(fmt::format(
          "scheme {}: leaves activations in float, which integer-only arithmetic cannot run: compare it "
          "without {} and {} integer",
          scheme, setting("integer"), setting("arithmetic")));
    }
    for (const quant::Method method : options_.methods) items_.push_back({method, scheme});
  }
  // Reads all data and prompts: what is missing is missed before the work starts.
  EvaluationOptions evaluation = options_.evaluation;
  evaluation.output.reset();
  evaluation.base.reset();
  evaluation.keep_logprobs = false;
  evaluation.peers = {};
  planned_ = std::make_unique<const Evaluation>(*base_session_, evaluation);
  for (const Evaluation::TaskPlan& task : planned_->plan()) {
    evaluation_tokens_ += task.tokens_computed;
    scored_tokens_ += task.tokens_scored;
  }
  evaluation_ = planned_->fingerprint();
}

Matrix::~Matrix() = default;

bool Matrix::first_finds(const std::function<bool()>& check) const {
  bool found = false;
  on_first(peers(), [&] { found = check(); });
  return decided_by_first(peers(), found);
}

void Matrix::open_folder() {
  on_first(peers(), [&] {
    qeval::create_directories(options_.output);
    lock_ = std::make_unique<DirectoryLock>(options_.output);
    check_folder();
    const fs::path path = options_.output / matrix_file;
    std::error_code code;
    if (!fs::exists(path, code))
      write_file_atomically(path, dump_json({{"matrix", fingerprint()}}, path.string(), 2) + "\n");
  });
}

Fingerprint Matrix::fingerprint() const {
  const quant::QuantizeOptions& options = options_.quantize.options;
  Fingerprint print{{"model", base_session_->model().weight_hash()},
                    {"calibration", quant::samples_hash(options_.quantize.samples)},
                    {"range", std::string(quant::name(options.calibration.estimator))},
                    {"percentile", fmt::format("{}", options.calibration.percentile)},
                    {"variant", std::string(quant::name(options.variant))},
                    {"alpha", fmt::format("{}", options.alpha)},
                    {"smooth", options.smooth ? "yes" : "no"},
                    {"fake", options_.fake ? "yes" : "no"},
                    {"integer", options_.integer == IntegerRuns::none   ? "none"
                                : options_.integer == IntegerRuns::best ? "best"
                                                                        : "all"}};
  for (const auto& [key, value] : evaluation_) print["evaluation " + key] = value;
  for (const auto& [method, settings] : options_.learning) {
    const auto json = quant::learn_json(settings);
    for (const auto& [key, value] : json.items())
      print[fmt::format("{} {}", quant::name(method), key)] = value.dump();
  }
  for (const quant::Method method : options_.methods)
    print["methods"] += (print["methods"].empty() ? "" : ",") + std::string(quant::name(method));
  for (const std::string& scheme : options_.schemes)
    print["schemes"] += (print["schemes"].empty() ? "" : ",") + scheme;
  return print;
}

void Matrix::check_folder() const {
  require_use(options_.output, FolderUse::methods);
  const fs::path path = options_.output / matrix_file;
  std::error_code code;
  if (fs::exists(path, code)) {
    const auto json = parse_ordered_json(read_file(path), path.string());
    const OrderedJsonObject fields = OrderedJsonObject(json, path.string()).object("matrix");
    Fingerprint there;
    for (const auto& [key, value] : fields.value().items()) there[key] = fields.string(key);
    const std::string changes = describe_changes(there, fingerprint());
    if (changes.empty()) return;
    fail("{}: holds a comparison with other settings: {}: choose another directory or the same settings",
         options_.output.string(), changes);
  }
  for (const char* name : {"checkpoints", "results"}) {
    if (fs::exists(options_.output / name, code)) {
      fail(
          "{}: holds {} but no {}, so it is not of a comparison that could be continued: choose another "
          "directory",
          options_.output.string(), name, matrix_file);
    }
  }
}

fs::path Matrix::results_folder(const ComparisonEntry& entry) const {
  return options_.output / entry.results;
}

bool Matrix::is_evaluated(const ComparisonEntry& entry) const {
  std::error_code code;
  return fs::exists(results_folder(entry) / results_file, code);
}

bool Matrix::is_quantized(const Item& item) const {
  const fs::path path = options_.output / "checkpoints" / item.folder() / quant::kRecordFile;
  std::error_code code;
  if (!fs::exists(path, code)) return false;
  const auto record = parse_ordered_json(read_file(path), path.string());
  const OrderedJsonObject fields(record, path.string());
  const std::string method = fields.string("method"), scheme = fields.object("settings").string("scheme");
  if (method != quant::name(item.method) || scheme != item.scheme) {
    fail("{}: is of {} {}; expected: {}", path.string(), printable(method), printable(scheme), item.name());
  }
  return true;
}

double Matrix::learning_left(const Item& item, const quant::LearnSettings& settings) const {
  const int64_t steps = quant::learning_steps(settings, std::ssize(options_.quantize.samples),
                                              base_session_->model().config.num_layers);
  const int64_t done = quant::interrupted_steps(options_.output / "checkpoints" / item.folder());
  return std::max(0.0, 1.0 - static_cast<double>(done) / static_cast<double>(std::max<int64_t>(1, steps)));
}

ComparisonEntry Matrix::base_entry() const {
  ComparisonEntry entry{"fp", "fp", "", "", "float", "results/fp", "", {}};
  entry.commands.push_back(fmt::format("qeval eval -m {}{} --arithmetic float --keep-logprobs -o {}",
                                       shell_quoted(options_.session.model.string()),
                                       with_space(options_.evaluation_arguments),
                                       shell_quoted(results_folder(entry).string())));
  return entry;
}

ComparisonEntry Matrix::entry(const Item& item, const std::string& arithmetic) const {
  const bool smooths = item.method != quant::Method::rtn;
  ComparisonEntry entry{arithmetic == "fake" ? item.name() : item.name() + " " + arithmetic,
                        std::string(quant::name(item.method)),
                        smooths ? std::string(quant::name(options_.quantize.options.variant)) : "",
                        item.scheme,
                        arithmetic,
                        fmt::format("results/{}-{}", item.folder(), arithmetic),
                        "checkpoints/" + item.folder(),
                        {}};
  const fs::path checkpoint = options_.output / entry.checkpoint;
  entry.commands = {quantize_run(item).command,
                    fmt::format("qeval eval -m {}{} --arithmetic {} --base {} -o {}",
                                shell_quoted(checkpoint.string()), with_space(options_.evaluation_arguments),
                                arithmetic, shell_quoted(results_folder(base_entry()).string()),
                                shell_quoted(results_folder(entry).string()))};
  return entry;
}

quant::QuantizeRun Matrix::quantize_run(const Item& item) const {
  quant::QuantizeRun run = options_.quantize;
  run.options.method = item.method;
  run.options.scheme = quant::parse_scheme(item.scheme);
  run.scheme = item.scheme;
  run.resume = quant::QuantizeRun::Resume::if_interrupted;
  run.peers = peers();
  run.command = fmt::format("qeval quantize -m {} --method {} --scheme {}{}",
                            shell_quoted(options_.session.model.string()), quant::name(item.method),
                            item.scheme, with_space(options_.quantize_arguments));
  if (item.method != quant::Method::rtn)
    run.command += fmt::format(" --variant {}", quant::name(run.options.variant));
  if (quant::smooths(run.options)) run.command += fmt::format(" --alpha {}", run.options.alpha);
  if (const auto found = options_.learning.find(item.method); found != options_.learning.end()) {
    run.learning = found->second;
    const auto typed = options_.learn_arguments.find(item.method);
    if (typed != options_.learn_arguments.end()) run.command += with_space(typed->second);
  }
  run.command += " -o " + shell_quoted((options_.output / "checkpoints" / item.folder()).string());
  return run;
}

std::vector<MatrixStep> Matrix::plan(int64_t ranks) {
  const TokenCosts costs = measure_costs(*base_session_);
  const double evaluation_seconds = planned_->largest_share(costs, ranks);
  const quant::Samples& samples = options_.quantize.samples;
  const int64_t sample_tokens = count_tokens(samples);
  double sample_seconds = 0;  // a forward pass over the samples, without the head
  for (const auto& sample : samples) sample_seconds += costs.tokens(0, static_cast<double>(sample.size()));
  const double second_per_token = sample_seconds / static_cast<double>(std::max<int64_t>(1, sample_tokens));
  // Of `count` equal pieces of work the rank with most has this share.
  const auto share = [ranks](int64_t count) {
    const int64_t most = (count + ranks - 1) / ranks;
    return count == 0 ? 1.0 : static_cast<double>(most) / static_cast<double>(count);
  };
  std::vector<MatrixStep> steps;
  const auto evaluation = [&](const ComparisonEntry& entry) {
    const bool finished = is_evaluated(entry);
    const double left = finished ? 0 : planned_->largest_share_left(costs, ranks, results_folder(entry));
    steps.push_back({"evaluate " + entry.name, evaluation_tokens_, evaluation_seconds, left, finished});
  };
  evaluation(base_entry());
  // What the points saw is shared, but not kept in the folder: a process that continues sees it again.
  struct Seen {
    bool base = false, smoothed = false;
  } before, now;
  for (const Item& item : items_) {
    MatrixStep step{"quantize " + item.name(), 0, 0, 0, is_quantized(item)};
    const bool smooths = item.method != quant::Method::rtn;
    Seen& seen = step.finished ? before : now;
    if (!std::exchange(seen.base, true)) step.tokens += sample_tokens;
    if (smooths && !std::exchange(seen.smoothed, true)) step.tokens += sample_tokens;
    // Every rank makes the histograms of other ranges than min-max.
    const bool shared = options_.quantize.options.calibration.estimator == quant::RangeEstimator::minmax;
    step.seconds = static_cast<double>(step.tokens) * second_per_token * kObservedCost *
                   (shared ? share(std::ssize(samples)) : 1.0);
    const int64_t compared =
        2 * quant::layer_error_tokens(options_.quantize.samples);  // in float and rounded
    step.tokens += compared;
    step.seconds += static_cast<double>(compared) * second_per_token;
    if (const auto found = options_.learning.find(item.method); found != options_.learning.end()) {
      const quant::LearnSettings& settings = found->second;
      const int64_t learned = sample_tokens * settings.epochs;
      step.tokens += learned;
      const double seconds = static_cast<double>(learned) * second_per_token * kLearningCost *
                             share(std::min(settings.batch_size, std::ssize(samples)));
      step.left = step.seconds + seconds * learning_left(item, settings);
      step.seconds += seconds;
    } else {
      step.left = step.seconds;
    }
    if (step.finished) step.left = 0;
    steps.push_back(step);
    if (options_.fake) evaluation(entry(item, "fake"));
    if (options_.integer == IntegerRuns::all) evaluation(entry(item, "integer"));
  }
  if (options_.integer == IntegerRuns::best) {
    std::vector<ComparisonEntry> fakes;
    fakes.reserve(items_.size());
    for (const Item& item : items_) fakes.push_back(entry(item, "fake"));
    const bool known = std::ranges::all_of(fakes, [&](const auto& fake) { return is_evaluated(fake); });
    if (known) {
      evaluation(entry(best(fakes), "integer"));
    } else {
      steps.push_back({"evaluate the best of them, integer", evaluation_tokens_, evaluation_seconds,
                       evaluation_seconds, false});
    }
  }
  return steps;
}

int64_t Matrix::disk_bytes() const {
  const model::Model& model = base_session_->model();
  const auto elements = [](const model::Matrix& matrix) { return matrix.rows * matrix.cols; };
  int64_t parameters = elements(model.embedding);
  if (!model.head.weight.stored.is_same(model.embedding.stored)) parameters += elements(model.head.weight);
  for (const model::LayerWeights& layer : model.layers) {
    for (const auto& [module, linear] : layer.linears) parameters += elements(linear.weight);
  }
  constexpr int64_t kFloatBytes = 4;
  return std::ssize(items_) * parameters * kFloatBytes +
         scored_tokens_ * kept_bytes_per_position(model.config.vocab_size);
}

void Matrix::evaluate(const ComparisonEntry& entry, const MatrixObserver& observer) {
  if (first_finds([&] { return is_evaluated(entry); })) return;
  const StepClock clock("evaluate " + entry.name, observer);
  const bool is_base = entry.checkpoint.empty();
  EvaluationOptions evaluation = options_.evaluation;
  evaluation.output = results_folder(entry);
  evaluation.command = entry.commands.back();
  evaluation.keep_logprobs = is_base;
  if (!is_base) evaluation.base = results_folder(base_entry());
  std::unique_ptr<Session> own;
  std::optional<Evaluation> prepared;
  together(peers(), [&] {
    if (!is_base) {
      SessionOptions session = options_.session;
      session.model = options_.output / entry.checkpoint;
      session.arithmetic = entry.arithmetic;
      own = std::make_unique<Session>(session);
    }
    prepared.emplace(is_base ? *base_session_ : *own, evaluation);
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

void Matrix::quantize(const Item& item, const MatrixObserver& observer) {
  if (first_finds([&] { return is_quantized(item); })) return;
  const StepClock clock("quantize " + item.name(), observer);
  const auto show = [&](const std::string& step, int64_t done, int64_t total) {
    observer.progress(fmt::format("{}: {}", item.name(), step), done, total);
  };
  const std::vector<quant::Warning> warnings =
      quant::quantize_to_folder(base_session_->model(), quantize_run(item),
                                options_.output / "checkpoints" / item.folder(), show, &observations_);
  for (const quant::Warning& warning : warnings)
    observer.warning(item.name() + ": " + quant::one_line(warning));
  clock.finished();
}

ComparedRun Matrix::read(const ComparisonEntry& entry) const {
  const fs::path folder = results_folder(entry);
  return {entry.name, folder, read_results(folder)};
}

const Matrix::Item& Matrix::best(const std::vector<ComparisonEntry>& entries) const {
  std::vector<ComparedRun> runs;
  runs.reserve(entries.size());
  for (const ComparisonEntry& entry : entries) runs.push_back(read(entry));
  const Comparison comparison = compare_runs(read(base_entry()), std::move(runs), {.resamples = 1});
  size_t best = 0;
  double least = INFINITY;
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    double loss = 0;
    for (const TaskDifference& task : comparison.differences[i].tasks) {
      const TaskResults* base = comparison.base.results.find_task(task.comparison.task);
      const std::string metric = headline_metric(*base);
      for (const MetricComparison& compared : task.comparison.metrics) {
        if (compared.metric == metric)
          loss += higher_is_better(metric) ? -compared.difference.delta : compared.difference.delta;
      }
    }
    if (loss < least) {
      least = loss;
      best = i;
    }
  }
  return items_[best];
}

Comparison Matrix::run(const MatrixObserver& observer) {
  planned_.reset();
  ComparisonFile file{"fp", {base_entry()}};
  evaluate(file.entries.front(), observer);
  for (const Item& item : items_) {
    quantize(item, observer);
    for (const char* arithmetic : {"fake", "integer"}) {
      const bool wanted =
          std::string_view(arithmetic) == "fake" ? options_.fake : options_.integer == IntegerRuns::all;
      if (!wanted) continue;
      file.entries.push_back(entry(item, arithmetic));
      evaluate(file.entries.back(), observer);
    }
  }
  if (options_.integer == IntegerRuns::best && !items_.empty()) {
    const std::vector<ComparisonEntry> fakes(file.entries.begin() + 1, file.entries.end());
    std::ptrdiff_t index = 0;
    on_first(peers(), [&] { index = &best(fakes) - items_.data(); });
    const Item& item = items_.at(std::stoul(from_first(peers(), std::to_string(index))));
    file.entries.push_back(entry(item, "integer"));
    evaluate(file.entries.back(), observer);
  }
  Comparison comparison;
  on_first(peers(), [&] {
    std::vector<ComparedRun> runs;
    for (size_t i = 1; i < file.entries.size(); ++i) runs.push_back(read(file.entries[i]));
    comparison = compare_runs(read(file.entries.front()), std::move(runs));
    write_comparison(options_.output, file, comparison);
  });
  return comparison;
}

}  // namespace qeval::eval
