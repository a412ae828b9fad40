#include "eval/compare/schedule.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "eval/compare/text_stage.h"
#include "eval/kept_distributions.h"

namespace qeval::eval {
namespace {

/// What a pass that observes every point, and a learning step, take of the time of a forward pass over as
/// many tokens (measured on SmolLM2-135M; the last was 8 and is scaled by how much faster learning became); a
/// step that learns around codes has a rotated float model beside it.
constexpr double kObservedCost = 2.0, kLearningCost = 3.0, kCodesCost = 5.0;

/// Passes over the text that tell a file's losses apart: the base, its three parts, and all of them.
constexpr int64_t kSplitPasses = 5;

/// Of `count` equal pieces of work the rank with most has this share.
double share(int64_t count, int64_t ranks) {
  const int64_t most = (count + ranks - 1) / ranks;
  return count == 0 ? 1.0 : static_cast<double>(most) / static_cast<double>(count);
}

class Scheduler {
 public:
  explicit Scheduler(const ScheduleInput& input) : in_(input) {
    for (const Evaluation::TaskPlan& task : in_.evaluation.plan()) evaluation_tokens_ += task.tokens_computed;
    evaluation_seconds_ = in_.evaluation.largest_share(in_.costs, in_.ranks);
    double seconds = 0;  // a forward pass over the samples, without the head
    for (const auto& sample : samples()) {
      sample_tokens_ += std::ssize(sample);
      seconds += in_.costs.tokens(0, static_cast<double>(sample.size()));
    }
    second_per_token_ = seconds / static_cast<double>(std::max<int64_t>(1, sample_tokens_));
  }

  std::vector<CompareStep> steps() {
    evaluate(in_.layout.base());
    for (const ComparisonEntry& entry : in_.layout.given()) evaluate(entry);
    for (const MadeModel& made : in_.layout.made()) {
      quantize(made);
      for (const ComparisonEntry& entry : in_.layout.entries(made)) evaluate(entry);
    }
    if (in_.options.integer == IntegerRuns::best) evaluate_best();
    if (in_.text_tokens > 0) measure_text();
    return std::move(steps_);
  }

 private:
  const quant::Samples& samples() const { return in_.options.quantize.samples; }

  void evaluate(const ComparisonEntry& entry) {
    const bool finished = in_.layout.is_evaluated(entry);
    const double left =
        finished ? 0 : in_.evaluation.largest_share_left(in_.costs, in_.ranks, in_.layout.results(entry));
    steps_.push_back({"evaluate " + entry.name, evaluation_tokens_, evaluation_seconds_, left, finished});
  }

  void evaluate_best() {
    const bool known = std::ranges::all_of(in_.layout.made(), [&](const MadeModel& made) {
      return in_.layout.is_evaluated(in_.layout.entry(made, "fake"));
    });
    if (known) return evaluate(in_.best());
    steps_.push_back({"evaluate the best of them, integer", evaluation_tokens_, evaluation_seconds_,
                      evaluation_seconds_, false});
  }

  /// Every run and, once per group of them, the base; all of a window's positions have logits.
  void measure_text() {
    CompareStep step{"compare on the text", 0, 0, 0, true};
    const auto window = static_cast<double>(in_.options.text->context);
    const auto add = [&](const ComparisonEntry& entry) {
      const bool splits = in_.options.text->losses && splits_losses(entry.model);
      const double pass = static_cast<double>(in_.text_tokens) / window *
                          (in_.costs.tokens(0, window) + window * in_.costs.scored);
      const double seconds =
          pass * (1 + 1.0 / static_cast<double>(kTextModelsAtOnce) + (splits ? kSplitPasses : 0));
      step.tokens += in_.text_tokens * (splits ? 1 + kSplitPasses : 1);
      step.seconds += seconds;
      if (in_.text_measured(entry.name)) return;
      step.left += seconds;
      step.finished = false;
    };
    for (const ComparisonEntry& entry : in_.layout.given()) add(entry);
    for (const MadeModel& made : in_.layout.made()) {
      for (const ComparisonEntry& entry : in_.layout.entries(made)) add(entry);
    }
    steps_.push_back(step);
  }

  void quantize(const MadeModel& made) {
    CompareStep step{"quantize " + made.name(), 0, 0, 0, in_.layout.is_quantized(made)};
    const bool rotates = in_.options.is_rotated(made.method);
    const bool smooths = quant::smooths(in_.layout.quantize_run(made).options);
    Seen& seen = step.finished ? before_ : now_;
    if (rotates) {
      step.tokens += 3 * sample_tokens_;  // extremes, spread, and about as much again for the first tokens
    } else if (!std::exchange(seen.base, true)) {
      step.tokens += sample_tokens_;
    }
    if (smooths && !std::exchange(seen.smoothed, true)) step.tokens += sample_tokens_;
    // Passes of their own for scales, the ranges behind them, and rounding.
    const bool from_codes = in_.options.learns_from_codes(made.method);
    const bool awq = made.method == quant::Method::awq,
               gptq = made.method == quant::Method::gptq || from_codes;
    step.tokens += sample_tokens_ * (awq ? 3 : gptq ? 1 : 0);
    // Every rank makes the histograms of other ranges than min-max.
    const bool shared =
        !rotates && in_.options.quantize.options.calibration.estimator == quant::RangeEstimator::minmax;
    step.seconds = static_cast<double>(step.tokens) * second_per_token_ * kObservedCost *
                   (shared ? share(std::ssize(samples()), in_.ranks) : 1.0);
    const int64_t compared = 2 * quant::layer_error_tokens(samples());  // in float and rounded
    step.tokens += compared;
    step.seconds += static_cast<double>(compared) * second_per_token_;
    step.left = step.seconds;
    if (const auto found = in_.options.learning.find({made.method, made.scheme});
        found != in_.options.learning.end()) {
      const quant::LearnSettings& settings = found->second;
      const int64_t learned = sample_tokens_ * settings.epochs;
      step.tokens += learned;
      const double seconds = static_cast<double>(learned) * second_per_token_ *
                             (from_codes ? kCodesCost : kLearningCost) *
                             share(std::min(settings.batch_size, std::ssize(samples())), in_.ranks);
      step.left += seconds * in_.layout.learning_left(made, settings, in_.layers);
      step.seconds += seconds;
    }
    if (step.finished) step.left = 0;
    steps_.push_back(step);
  }

  const ScheduleInput& in_;
  int64_t evaluation_tokens_ = 0, sample_tokens_ = 0;
  double evaluation_seconds_ = 0, second_per_token_ = 0;
  /// What the points saw is shared, but not kept in the folder: a process that continues sees it again.
  struct Seen {
    bool base = false, smoothed = false;
  } before_, now_;
  std::vector<CompareStep> steps_;
};

}  // namespace

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

std::vector<CompareStep> schedule(const ScheduleInput& input) {
  return Scheduler(input).steps();
}

int64_t compare_disk_bytes(const model::Model& base, int64_t made, int64_t scored) {
  const auto elements = [](const model::Matrix& matrix) { return matrix.rows * matrix.cols; };
  int64_t parameters = elements(base.embedding);
  if (!base.head.weight.stored.is_same(base.embedding.stored)) parameters += elements(base.head.weight);
  for (const model::LayerWeights& layer : base.layers) {
    layer.visit_linears(
        [&](model::Module, const model::LinearWeights& linear) { parameters += elements(linear.weight); });
  }
  constexpr int64_t kFloatBytes = 4;
  return made * parameters * kFloatBytes + scored * kept_bytes_per_position(base.config.vocab_size);
}

}  // namespace qeval::eval
