#include "eval/evaluation.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include <sys/resource.h>

#include "base/error.h"
#include "base/parallel.h"
#include "model/kernels/cpu.h"
#include "quant/checkpoint.h"

namespace qeval::eval {
namespace {

constexpr size_t kShownIds = 32;

std::string_view name(Protocol protocol) {
  return protocol == Protocol::lm_eval_0_4 ? "lm-eval-0.4" : "lm-eval-0.3";
}

double seconds_since_epoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t peak_rss_bytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

/// One hash for all files a task read.
std::string data_hash(const LoadedTask& loaded) {
  std::string hash;
  for (const datasets::DataFile& file : loaded.files) hash += (hash.empty() ? "" : "+") + file.sha256;
  return hash;
}

RequestEncoder make_encoder(Session& session, const EvaluationOptions& options) {
  return RequestEncoder(session.tokenizer(), options.protocol, options.prefix, session.max_length());
}

}  // namespace

TaskRun::TaskRun(Task task, LoadedTask loaded, const RequestEncoder& encoder, int64_t batch_tokens)
    : task_(std::move(task)),
      loaded_(std::move(loaded)),
      encoded_(loaded_.documents.size()),
      batch_tokens_(batch_tokens),
      scores_(loaded_.documents.size()) {
  parallel_ranges(std::ssize(encoded_), 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Document& document = loaded_.documents[static_cast<size_t>(i)];
      try {
        encoded_[static_cast<size_t>(i)] = encode(document, encoder);
      } catch (const Error& error) {
        fail("task {}, document {}: {}", task_.name, document.doc_id, error.what());
      }
    }
  });
  for (const EncodedDocument& document : encoded_) {
    if (document.requests.empty()) continue;
    const auto& ids = document.requests.front().tokens;
    first_request_ids_.assign(
        ids.begin(), ids.begin() + std::ssize(std::span(ids).first(std::min(ids.size(), kShownIds))));
    break;
  }
  // The whole task's count, so that a resumed run reports what an unbroken one does.
  std::vector<TokenRequest> all;
  for (const EncodedDocument& document : encoded_) {
    all.insert(all.end(), document.requests.begin(), document.requests.end());
  }
  const Plan plan(all, batch_tokens);
  tokens_computed_ = plan.tokens_computed();
  tokens_requested_ = plan.tokens_requested();
}

quant::NgramSketch::Overlap TaskRun::overlap(const quant::NgramSketch& calibration) const {
  quant::NgramSketch::Overlap overlap;
  for (const EncodedDocument& document : encoded_) {
    // A document's choices repeat its context; the windows of a rolling one are all of its text.
    const size_t count = task_.scoring == Scoring::rolling ? document.requests.size() : 1;
    for (size_t i = 0; i < std::min(count, document.requests.size()); ++i) {
      calibration.look_up(document.requests[i].tokens, overlap);
    }
  }
  return overlap;
}

TaskRun::EncodedDocument TaskRun::encode(const Document& document, const RequestEncoder& encoder) const {
  EncodedDocument out;
  if (task_.scoring == Scoring::rolling) {
    out.requests = encoder.windows(document.requests.front().continuation);
  } else {
    for (const TextRequest& request : document.requests) {
      EncodedRequest encoded = encoder.encode(request);
      out.requests.push_back(std::move(encoded.tokens));
      out.truncated.push_back(encoded.truncated);
      out.encoded_apart.push_back(encoded.encoded_apart);
    }
  }
  return out;
}

void TaskRun::start_documents(model::Decoder& decoder, const std::vector<size_t>& open) {
  requests_.clear();
  owner_.clear();
  ready_.clear();
  for (const size_t i : open) {
    EncodedDocument& document = encoded_[i];
    document.missing = std::ssize(document.requests);
    scores_[i].resize(document.requests.size());
    if (document.requests.empty()) ready_.push_back(i);
    for (size_t r = 0; r < document.requests.size(); ++r) {
      requests_.push_back(document.requests[r]);
      owner_.emplace_back(i, r);
    }
  }
  plan_ = std::make_unique<Plan>(requests_, batch_tokens_);
  run_ = std::make_unique<ScoringRun>(decoder, *plan_);
}

std::vector<Sample> TaskRun::step() {
  std::vector<Sample> samples;
  for (const size_t document : std::exchange(ready_, {})) samples.push_back(make_sample(document));
  if (run_->done()) return samples;
  for (const int64_t request : run_->step()) {
    const auto [document, index] = owner_[static_cast<size_t>(request)];
    scores_[document][index] = run_->take(request);
    if (--encoded_[document].missing == 0) samples.push_back(make_sample(document));
  }
  return samples;
}

Sample TaskRun::make_sample(size_t index) {
  const Document& document = loaded_.documents[index];
  EncodedDocument& encoded = encoded_[index];
  Sample sample;
  sample.doc = document.row;
  sample.target = document.target;
  sample.requests = document.requests;
  Scores& scores = sample.scores;
  scores.doc_id = document.doc_id;
  scores.scoring = task_.scoring;
  scores.metrics = task_.metrics;
  scores.facts = document.facts;
  scores.token_hash = token_hash(encoded.requests);
  const auto answer = [&](size_t r) {
    const TokenScores& token_scores = scores_[index][r];
    const TokenRequest& request = encoded.requests[r];
    return Answer{.log_likelihood = token_scores.log_likelihood(),
                  .is_greedy = token_scores.is_greedy(request),
                  .tokens = request.scored,
                  .input_tokens = std::ssize(request.input())};
  };
  if (task_.scoring == Scoring::rolling) {
    Answer whole{.is_greedy = true, .windows = std::ssize(encoded.requests)};
    for (size_t r = 0; r < encoded.requests.size(); ++r) {
      const Answer window = answer(r);
      whole.log_likelihood += window.log_likelihood;
      whole.is_greedy = whole.is_greedy && window.is_greedy;
      whole.tokens += window.tokens;
      whole.input_tokens += window.input_tokens;
    }
    scores.answers = {whole};
  } else {
    for (size_t r = 0; r < encoded.requests.size(); ++r) {
      Answer one = answer(r);
      one.truncated = encoded.truncated[r];
      one.encoded_apart = encoded.encoded_apart[r];
      scores.answers.push_back(one);
    }
  }
  scores_[index] = {};
  return sample;
}

Evaluation::Evaluation(Session& session, EvaluationOptions options)
    : session_(session),
      options_(std::move(options)),
      selection_(resolve_tasks(options_.tasks, options_.protocol)),
      encoder_(make_encoder(session, options_)),
      started_(seconds_since_epoch()),
      started_monotonic_(monotonic_seconds()) {
  for (const Task& task : selection_.tasks) {
    runs_.push_back(std::make_unique<TaskRun>(task, load_documents(task, options_.load), encoder_,
                                              options_.batch_tokens));
  }
  check_overlap();
  weight_hash_ = session_.model().weight_hash();
  if (options_.output) {
    std::vector<std::string> names;
    for (const Task& task : selection_.tasks) names.push_back(task.name);
    directory_ = std::make_unique<RunDirectory>(*options_.output, fingerprint(), names, options_.resume);
  }
  for (const auto& run : runs_) {
    run->start(session_.decoder(), [&](int64_t doc_id) {
      const bool finished = directory_ && directory_->is_finished(run->task().name, doc_id);
      documents_finished_ += finished;
      return finished;
    });
    tokens_total_ += run->tokens_to_do();
  }
  while (!done() && runs_[current_]->done()) close_task();
}

Evaluation::~Evaluation() = default;

void Evaluation::check_overlap() {
  const auto calibration = quant::read_ngram_sketch(session_.model().path);
  if (!calibration) return;
  for (const auto& run : runs_) {
    const quant::NgramSketch::Overlap overlap = run->overlap(*calibration);
    overlaps_.push_back(overlap.share());
    if (overlap.found == 0) continue;
    warnings_.push_back(fmt::format(
        "task {}: about {:.2g} % of its {}-grams also stand in the text that the model was calibrated on",
        run->task().name, 100.0 * overlap.share(), quant::NgramSketch::kLength));
  }
}

Fingerprint Evaluation::fingerprint() const {
  Fingerprint print{{"weights", weight_hash_},
                    {"tokenizer", session_.tokenizer().hash()},
                    {"arithmetic", session_.arithmetic().name()},
                    {"quantization", session_.quantization() ? session_.quantization()->hash : ""},
                    {"protocol", std::string(name(options_.protocol))},
                    {"prefix", encoder_.prefix_policy()},
                    {"max_length", std::to_string(session_.max_length())},
                    {"fewshot", std::to_string(options_.load.num_fewshot)},
                    {"seed", std::to_string(options_.load.seed)},
                    {"limit", options_.limit},
                    {"version", options_.version}};
  for (const auto& run : runs_) {
    const Task& task = run->task();
    print["task " + task.name] = std::to_string(task.version);
    print["split " + task.name] = run->loaded().split;
    print["prompts " + task.name] = run->loaded().prompt_hash;
    print["data " + task.name] = data_hash(run->loaded());
  }
  return print;
}

void Evaluation::step() {
  TaskRun& run = *runs_[current_];
  const int64_t before = run.tokens_done();
  for (Sample& sample : run.step()) {
    if (directory_) {
      directory_->append(run.task().name, sample);
    } else {
      scores_.push_back(std::move(sample.scores));
    }
    ++documents_finished_;
  }
  tokens_done_ += run.tokens_done() - before;
  while (!done() && runs_[current_]->done()) close_task();
}

void Evaluation::close_task() {
  const TaskRun& run = *runs_[current_];
  std::string samples_hash;
  if (directory_) {
    RunDirectory::Finished finished = directory_->finish(run.task().name);
    scores_ = std::move(finished.scores);
    samples_hash = finished.samples_hash;
  } else {
    std::ranges::sort(scores_, {}, &Scores::doc_id);
  }
  TaskResults results = make_task_results(run.task().name, std::exchange(scores_, {}), BootstrapOptions{});
  results.version = std::to_string(run.task().version);
  results.split = run.loaded().split;
  results.num_fewshot = options_.load.num_fewshot;
  results.original_documents = run.loaded().split_size;
  results.tokens_computed = run.tokens_computed();
  results.data_hash = data_hash(run.loaded());
  results.prompt_hash = run.loaded().prompt_hash;
  results.samples_hash = samples_hash;
  if (!overlaps_.empty()) results.config["calibration_overlap"] = overlaps_[current_];
  results.first_request_ids = run.first_request_ids();
  results_.push_back(std::move(results));
  runs_[current_].reset();
  ++current_;
}

std::vector<Evaluation::TaskPlan> Evaluation::plan() const {
  std::vector<TaskPlan> plans;
  for (const auto& run : runs_) {
    if (!run) continue;
    plans.push_back({run->task().name, std::ssize(run->loaded().documents), run->tokens_requested(),
                     run->tokens_computed()});
  }
  return plans;
}

Evaluation::Progress Evaluation::progress() const {
  return {.task = done() ? "" : runs_[current_]->task().name,
          .tokens_done = tokens_done_,
          .tokens_total = tokens_total_,
          .documents_done = documents_finished_};
}

RunResults Evaluation::finish() {
  RunResults run;
  run.tasks = std::move(results_);
  for (const Group& group : selection_.groups) {
    run.groups.push_back(make_group_results(run, group.name, group.tasks, group.metrics));
  }
  const model::Model& model = session_.model();
  run.model.name = model.name;
  run.model.arithmetic = session_.arithmetic().name();
  run.model.format = model.format;
  run.model.weight_hash = weight_hash_;
  if (session_.quantization()) run.model.quantization_hash = session_.quantization()->hash;
  run.model.details["weight_bytes"] = model.weight_bytes();
  run.environment = {.cpu = model::cpu_name(),
                     .cpu_path = std::string(model::name(model::cpu_path())),
                     .threads = options_.threads,
                     .version = options_.version};
  run.protocol = name(options_.protocol);
  run.prefix_policy = encoder_.prefix_policy();
  run.tokenizer_hash = session_.tokenizer().hash();
  run.max_length = session_.max_length();
  run.limit = options_.limit;
  run.seed = options_.load.seed;
  run.command = options_.command;
  run.date = started_;
  run.seconds = monotonic_seconds() - started_monotonic_;
  run.peak_rss_bytes = peak_rss_bytes();
  if (options_.output) write_results(*options_.output, run);
  return run;
}

}  // namespace qeval::eval
