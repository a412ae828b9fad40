#include "eval/evaluation.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/memory.h"
#include "base/setting.h"
#include "eval/describe_model.h"
#include "eval/distributed/shard_record.h"
#include "eval/results/cpu_paths.h"
#include "eval/run_settings.h"
#include "model/kernels/cpu.h"
#include "quant/checkpoint/checkpoint.h"

namespace qeval::eval {
namespace {

double seconds_since_epoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// One of the two files of a quantized checkpoint, which alone say nothing.
bool is_half_checkpoint(const std::filesystem::path& model) {
  std::error_code code;
  return std::filesystem::exists(model / "default_qcfg.json", code) !=
         std::filesystem::exists(model / "act_dict.json", code);
}

}  // namespace

Evaluation::Evaluation(Session& session, EvaluationOptions options)
    : Evaluation(session, options, encode_tasks(session, options)) {}

Evaluation::Evaluation(Session& session, EvaluationOptions options, EncodedTasks tasks)
    : session_(session),
      options_(std::move(options)),
      tasks_(std::move(tasks)),
      folder_(options_.output, options_.resume, options_.peers),
      started_(seconds_since_epoch()),
      started_monotonic_(monotonic_seconds()) {
  for (const auto& task : tasks_.tasks) runs_.push_back(std::make_unique<TaskRun>(task));
  warnings_.insert(warnings_.end(), session_.warnings().begin(), session_.warnings().end());
  check_overlap();
  const std::vector<std::string>& of_tokenizer = session_.tokenizer().warnings();
  warnings_.insert(warnings_.end(), of_tokenizer.begin(), of_tokenizer.end());
  warnings_.insert(warnings_.end(), tasks_.warnings.begin(), tasks_.warnings.end());
  if (session_.arithmetic().name().starts_with("float") && is_half_checkpoint(session_.model().path)) {
    warnings_.push_back(
        fmt::format("{}: holds only one of default_qcfg.json and act_dict.json, so it is computed in "
                    "float; a quantized checkpoint has both",
                    session_.model().path.string()));
  }
  if ((options_.base || options_.keep_logprobs) && !options_.output)
    fail("log-probabilities are kept and compared in files: {}, a folder, is needed", setting("output"));
  if (options_.base) base_.emplace(*options_.base);
  check_base();
  for (const auto& run : runs_) observe(*run);
  if (!options_.output && (options_.shard || !options_.peers.alone()))
    fail("a shard, and a run of several processes, needs {}, a folder", setting("output"));
  if (options_.shard)
    shard_ = documents_of_part(costs(token_costs(session_.model().config)), options_.shard->index - 1,
                               options_.shard->count);
}

void Evaluation::check_base() {
  if (!base_) return;
  RunResults here = run_settings(session_, options_, tasks_);
  for (const auto& task : tasks_.tasks) {
    here.tasks.push_back(task_settings(*task));
    here.tasks.back().counts.documents = task->documents();
  }
  base_->require_same_rules(here);
}

std::vector<std::vector<DocumentCost>> Evaluation::costs(const TokenCosts& token) const {
  std::vector<std::vector<DocumentCost>> out;
  for (size_t task = 0; task < tasks_.tasks.size(); ++task) {
    out.push_back(tasks_.tasks[task]->costs(
        token, [&](int64_t doc_id) { return shard_.empty() || shard_[task].contains(doc_id); }));
  }
  return out;
}

double Evaluation::largest_share(const TokenCosts& token, int64_t parts) const {
  return std::ranges::max(part_costs(costs(token), parts));
}

double Evaluation::largest_share_left(const TokenCosts& token, int64_t parts,
                                      const std::filesystem::path& folder) const {
  std::vector<std::vector<DocumentCost>> left;
  for (const auto& task : tasks_.tasks) {
    const std::set<int64_t> finished = finished_documents(folder, task->task().name);
    left.push_back(task->costs(token, [&](int64_t doc_id) { return !finished.contains(doc_id); }));
  }
  return std::ranges::max(part_costs(left, parts));
}

void Evaluation::check_folder() {
  folder_.check(fingerprint(), tasks_.names());
}

Fingerprint Evaluation::fingerprint() {
  return run_fingerprint(session_, options_, tasks_, base_ ? &*base_ : nullptr);
}

DocumentSets Evaluation::documents() const {
  if (!shard_.empty()) return shard_;
  DocumentSets out;
  for (const auto& task : tasks_.tasks) {
    out.emplace_back();
    for (const Document& document : task->loaded().documents) out.back().insert(document.doc_id);
  }
  return out;
}

DocumentSets Evaluation::own_part(const DocumentSets& open) const {
  const Peers& peers = options_.peers;
  if (peers.alone()) return open;
  const TokenCosts token = token_costs(session_.model().config);
  std::vector<std::vector<DocumentCost>> costs_of_open;
  for (size_t task = 0; task < tasks_.tasks.size(); ++task) {
    costs_of_open.push_back(
        tasks_.tasks[task]->costs(token, [&](int64_t doc_id) { return open[task].contains(doc_id); }));
  }
  return documents_of_part(costs_of_open, peers.rank, peers.size);
}

void Evaluation::describe_ranks() {
  const Peers& peers = options_.peers;
  const auto all = [&](std::string_view mine) {
    const std::vector<std::string> ranks = gather(peers, mine);
    return joined(std::set<std::string>(ranks.begin(), ranks.end()));
  };
  environment_ = {.cpu = all(model::cpu_name()),
                  .cpu_path = all(model::name(model::cpu_path())),
                  .threads = 0,
                  .version = options_.version,
                  .commit = options_.commit};
  for (const std::string& threads : gather(peers, std::to_string(options_.threads)))
    environment_.threads += std::stoll(threads);
}

void Evaluation::warn_of_kernels(bool computes) {
  std::set<std::string> cpu_paths;
  if (folder_.directory() != nullptr) cpu_paths = folder_.directory()->cpu_paths();
  if (computes) cpu_paths.merge(split(environment_.cpu_path));
  if (auto warning = kernels_warning(cpu_paths, !session_.arithmetic().has_float_tensors()))
    warnings_.push_back(std::move(*warning));
}

void Evaluation::begin() {
  describe_ranks();
  folder_.open(fingerprint(), tasks_.names(), companions());
  const DocumentSets open = folder_.unfinished(tasks_, documents());
  warn_of_kernels(std::ranges::any_of(open, [](const auto& documents) { return !documents.empty(); }));
  const DocumentSets own = own_part(open);
  const TaskMeans means{session_.decoder(), session_.tokenizer(), session_.model().path,
                        options_.batch_tokens, options_.kv_bytes};
  for (size_t task = 0; task < runs_.size(); ++task) {
    TaskRun& run = *runs_[task];
    const int64_t all = shard_.empty() ? run.encoded().documents() : std::ssize(shard_[task]);
    documents_finished_ += all - std::ssize(open[task]);
    run.start(means, [&](int64_t doc_id) { return own[task].contains(doc_id); });
    tokens_total_ += run.tokens_to_do();
  }
  advance();
}

/// Past every task of which nothing is left to do here. Alone, such a task is finished; with peers, the first
/// rank finishes all of them in the end.
void Evaluation::advance() {
  while (!done() && runs_[current_]->done()) {
    if (options_.peers.alone()) close_task(current_);
    ++current_;
  }
}

Evaluation::~Evaluation() = default;

void Evaluation::check_overlap() {
  const auto calibration = quant::read_ngram_sketch(session_.model().path);
  if (!calibration) return;
  for (const auto& task : tasks_.tasks) {
    const quant::NgramSketch::Overlap overlap = task->overlap(*calibration);
    overlaps_.push_back(overlap.share());
    if (overlap.found == 0) continue;
    warnings_.push_back(fmt::format(
        "task {}: about {:.2g} % of its {}-grams also stand in the text that the model was calibrated on",
        task->task().name, 100.0 * overlap.share(), quant::NgramSketch::kLength));
  }
}

void Evaluation::observe(TaskRun& run) const {
  const std::string& task = run.task().name;
  if (run.task().generation) {  // has no distributions; its texts are compared from the samples files
    if (base_) base_->require_same_prompts(run.encoded());
    return;
  }
  if (!base_ && !options_.keep_logprobs) return;
  std::unique_ptr<KeptDistributions> kept;
  bool identical = false;
  if (base_) {
    const DivergenceBase identity = base_->identity(task);
    kept = std::make_unique<KeptDistributions>(base_->directory / kept_file(task), task,
                                               session_.model().config.vocab_size);
    identical = identity.weight_hash == session_.weight_hash() &&
                identity.arithmetic == session_.arithmetic().name() &&
                identity.quantization_hash == quantization_hash(session_);
  }
  run.observe(options_.keep_logprobs, std::move(kept), identical);
}

std::vector<CompanionFormat> Evaluation::companions() const {
  std::vector<CompanionFormat> out;
  std::set<std::string> scored;
  for (const auto& task : tasks_.tasks) {
    if (!task->task().generation) scored.insert(task->task().name);
  }
  if (base_) {
    std::map<std::string, DivergenceBase> identities;
    for (const std::string& task : scored) identities[task] = base_->identity(task);
    out.push_back(divergence_format(identities, kKeptTokens));
  }
  if (options_.keep_logprobs) {
    out.push_back(kept_format(session_.model().config.vocab_size));
    out.back().tasks = scored;
  }
  return out;
}

void Evaluation::step() {
  TaskRun& run = *runs_[current_];
  const int64_t before = run.tokens_done();
  for (TaskRun::Finished& finished : run.step()) {
    if (folder_.directory() != nullptr) {
      folder_.directory()->append(run.task().name, finished.sample, finished.records);
    } else {
      scores_.push_back(std::move(finished.sample.scores));
    }
    ++documents_finished_;
  }
  tokens_done_ += run.tokens_done() - before;
  advance();
}

void Evaluation::close_task(size_t index) {
  const TaskRun& run = *runs_[index];
  RunDirectory::Finished finished;
  if (folder_.directory() != nullptr) {
    finished = folder_.directory()->finish(run.task().name);
    scores_ = std::move(finished.scores);
  } else {
    std::ranges::sort(scores_, {}, &Scores::doc_id);
  }
  const std::vector<Scores> scores = std::exchange(scores_, {});
  const auto expected = shard_.empty() ? run.loaded().documents.size() : shard_[index].size();
  if (scores.size() != expected) {
    fail("task {}: {} of {} documents are finished; the same command with {} scores the others",
         run.task().name, scores.size(), expected, setting("resume"));
  }
  TaskResults results = task_settings(run.encoded());
  if (options_.shard) {
    results.counts = count(scores);
  } else {
    TaskResults scored = make_task_results(results.name, scores, BootstrapOptions{});
    results.metrics = std::move(scored.metrics);
    results.counts = scored.counts;
    results.logits_hash = std::move(scored.logits_hash);
  }
  results.samples_hash = finished.samples_hash;
  results.companion_hashes = finished.companion_hashes;
  if (!overlaps_.empty()) results.config["calibration_overlap"] = overlaps_[index];
  results_.push_back(std::move(results));
  if (options_.shard) return;
  runs_[index].reset();
  tasks_.tasks[index].reset();
}

std::vector<Evaluation::TaskPlan> Evaluation::plan() const {
  std::vector<TaskPlan> plans;
  for (const auto& task : tasks_.tasks) {
    if (!task) continue;
    plans.push_back({task->task().name, task->documents(), task->plan().tokens_requested(),
                     task->plan().tokens_computed(), task->tokens_scored(),
                     task->task().generation != nullptr});
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
  const Peers& peers = options_.peers;
  if (peers.alone()) return collect(peak_memory());
  together(peers, [&] {
    if (!peers.is_first()) folder_.close();
  });
  int64_t peak = 0;
  for (const std::string& of_rank : gather(peers, std::to_string(peak_memory())))
    peak = std::max(peak, int64_t{std::stoll(of_rank)});
  RunResults run;
  on_first(peers, [&] {
    folder_.directory()->absorb_ranks();
    for (size_t task = 0; task < runs_.size(); ++task) close_task(task);
    run = collect(peak);
  });
  return run;
}

RunResults Evaluation::collect(int64_t peak_bytes) {
  RunResults run = run_settings(session_, options_, tasks_);
  run.date = started_;
  run.tasks = std::move(results_);
  for (const Group& group : tasks_.selection.groups) {
    if (options_.shard) {
      run.groups.push_back({group.name, group.tasks, {}, 0, group.weighted});
    } else {
      run.groups.push_back(make_group_results(run, group.name, group.tasks, group.metrics, group.weighted));
    }
  }
  run.model.details = to_json(describe_model(session_));
  run.environment = environment_;
  if (const RunDirectory* directory = folder_.directory();
      directory != nullptr && !directory->cpu_paths().empty())
    run.environment.cpu_path = joined(directory->cpu_paths());
  run.seconds = monotonic_seconds() - started_monotonic_;
  run.peak_rss_bytes = peak_bytes;
  if (options_.shard) {
    ShardRecord record{*options_.shard, fingerprint(), run, {}, {}, {}};
    for (const auto& task : tasks_.tasks) record.documents[task->task().name] = task->documents();
    for (const Group& group : tasks_.selection.groups) record.group_metrics[group.name] = group.metrics;
    if (options_.keep_logprobs) record.vocab_size = session_.model().config.vocab_size;
    write_shard_record(*options_.output, record);
  } else if (options_.output) {
    write_results(*options_.output, run);
  }
  return run;
}

}  // namespace qeval::eval
