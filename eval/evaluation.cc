#include "eval/evaluation.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <sstream>

#include <sys/resource.h>

#include "base/error.h"
#include "base/setting.h"
#include "eval/describe_model.h"
#include "eval/distributed/shard_record.h"
#include "eval/results/cpu_paths.h"
#include "model/kernels/cpu.h"
#include "quant/checkpoint/checkpoint.h"

namespace qeval::eval {
namespace {

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

/// One of the two files of a quantized checkpoint, which alone say nothing.
bool is_half_checkpoint(const std::filesystem::path& model) {
  std::error_code code;
  return std::filesystem::exists(model / "default_qcfg.json", code) !=
         std::filesystem::exists(model / "act_dict.json", code);
}

RequestEncoder make_encoder(Session& session, const EvaluationOptions& options) {
  return RequestEncoder(session.tokenizer(), options.protocol, options.prefix, session.max_length(),
                        options.add_bos);
}

}  // namespace

Evaluation::Evaluation(Session& session, EvaluationOptions options)
    : session_(session),
      options_(std::move(options)),
      selection_(resolve_tasks(options_.tasks, options_.protocol)),
      encoder_(make_encoder(session, options_)),
      started_(seconds_since_epoch()),
      started_monotonic_(monotonic_seconds()) {
  for (const Task& task : selection_.tasks) {
    runs_.push_back(std::make_unique<TaskRun>(task, load_documents(task, options_.load), encoder_,
                                              session_.model().config, options_.batch_tokens));
  }
  warnings_.insert(warnings_.end(), session_.warnings().begin(), session_.warnings().end());
  check_overlap();
  const std::vector<std::string>& of_tokenizer = session_.tokenizer().warnings();
  warnings_.insert(warnings_.end(), of_tokenizer.begin(), of_tokenizer.end());
  if (session_.arithmetic().name() == "float" && is_half_checkpoint(session_.model().path)) {
    warnings_.push_back(
        fmt::format("{}: holds only one of default_qcfg.json and act_dict.json, so it is computed in "
                    "float; a quantized checkpoint has both",
                    session_.model().path.string()));
  }
  weight_hash_ = session_.model().weight_hash();
  if ((options_.base || options_.keep_logprobs) && !options_.output)
    fail("log-probabilities are kept and compared in files: an output folder is needed (-o DIR)");
  if (options_.base) base_.emplace(*options_.base);
  check_base();
  for (const auto& run : runs_) observe(*run);
  if (!options_.output && (options_.shard || !options_.peers.alone()))
    fail("a shard, and a run of several processes, needs an output folder (-o DIR)");
  if (options_.shard)
    shard_ = part_of(costs(token_costs(session_.model().config)), options_.shard->index - 1,
                     options_.shard->count);
}

void Evaluation::check_base() const {
  if (!base_) return;
  RunResults here = settings();
  for (const auto& run : runs_) {
    here.tasks.push_back(task_settings(*run));
    here.tasks.back().counts.documents = std::ssize(run->loaded().documents);
  }
  base_->require_same_rules(here);
}

std::vector<std::vector<DocumentCost>> Evaluation::costs(const TokenCosts& token) const {
  std::vector<std::vector<DocumentCost>> out;
  for (size_t task = 0; task < runs_.size(); ++task) {
    out.push_back(runs_[task]->costs(
        token, [&](int64_t doc_id) { return shard_.empty() || shard_[task].contains(doc_id); }));
  }
  return out;
}

std::vector<std::set<int64_t>> Evaluation::part_of(const std::vector<std::vector<DocumentCost>>& tasks,
                                                   int64_t part, int64_t parts) const {
  const std::vector<std::vector<int64_t>> parts_of = split_documents(tasks, parts);
  std::vector<std::set<int64_t>> out(tasks.size());
  for (size_t task = 0; task < tasks.size(); ++task) {
    for (size_t i = 0; i < tasks[task].size(); ++i) {
      if (parts_of[task][i] == part) out[task].insert(static_cast<int64_t>(tasks[task][i].document));
    }
  }
  return out;
}

double Evaluation::largest_share(const TokenCosts& token, int64_t parts) const {
  return std::ranges::max(part_costs(costs(token), parts));
}

double Evaluation::largest_share_left(const TokenCosts& token, int64_t parts,
                                      const std::filesystem::path& folder) const {
  std::vector<std::vector<DocumentCost>> left;
  for (const auto& run : runs_) {
    const std::set<int64_t> finished = finished_documents(folder, run->task().name);
    left.push_back(run->costs(token, [&](int64_t doc_id) { return !finished.contains(doc_id); }));
  }
  return std::ranges::max(part_costs(left, parts));
}

std::vector<std::string> Evaluation::task_names() const {
  std::vector<std::string> names;
  for (const Task& task : selection_.tasks) names.push_back(task.name);
  return names;
}

void Evaluation::check_folder() const {
  if (options_.output) check_run_directory(*options_.output, fingerprint(), task_names(), options_.resume);
}

void Evaluation::open_folder() {
  if (!options_.output) return;
  const std::vector<std::string> names = task_names();
  const Peers& peers = options_.peers;
  const Fingerprint here = fingerprint();
  on_first(peers, [&] {
    directory_ = std::make_unique<RunDirectory>(*options_.output, here, names, options_.resume, companions());
  });
  together(peers, [&] {
    if (peers.is_first()) return;
    const std::optional<RunRecord> first = read_run_record(*options_.output);
    if (!first) {
      fail("{}: what the first rank wrote there is not to be seen; all ranks need the same storage",
           options_.output->string());
    }
    Fingerprint own = here;
    own["tasks"] = first->fingerprint.at("tasks");  // follows from the options, which are the same
    const std::string changes = describe_changes(first->fingerprint, own);
    if (!changes.empty()) fail("differs from the first rank in: {}", changes);
    directory_ = std::make_unique<RunDirectory>(rank_folder(*options_.output, peers.rank), here, names, true,
                                                companions());
  });
  directory_->compute_with(std::string(model::name(model::cpu_path())));
}

std::vector<std::set<int64_t>> Evaluation::open_documents() const {
  // Only the first rank knows what earlier runs finished: a line of doc_ids per task.
  std::string finished;
  for (const auto& run : runs_) {
    for (const Document& document : run->loaded().documents) {
      if (directory_ && directory_->is_finished(run->task().name, document.doc_id))
        finished += fmt::format(" {}", document.doc_id);
    }
    finished += '\n';
  }
  std::istringstream lines(from_first(options_.peers, finished));
  std::vector<std::set<int64_t>> open;
  for (size_t task = 0; task < runs_.size(); ++task) {
    std::set<int64_t>& documents = open.emplace_back();
    if (shard_.empty()) {
      for (const Document& document : runs_[task]->loaded().documents) documents.insert(document.doc_id);
    } else {
      documents = shard_[task];
    }
    std::string line;
    std::getline(lines, line);
    std::istringstream ids(line);
    for (int64_t id = 0; ids >> id;) documents.erase(id);
  }
  return open;
}

std::vector<std::set<int64_t>> Evaluation::own_part(const std::vector<std::set<int64_t>>& open) const {
  const Peers& peers = options_.peers;
  if (peers.alone()) return open;
  const TokenCosts token = token_costs(session_.model().config);
  std::vector<std::vector<DocumentCost>> tasks;
  for (size_t task = 0; task < runs_.size(); ++task) {
    tasks.push_back(runs_[task]->costs(token, [&](int64_t doc_id) { return open[task].contains(doc_id); }));
  }
  return part_of(tasks, peers.rank, peers.size);
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
                  .version = options_.version};
  for (const std::string& threads : gather(peers, std::to_string(options_.threads)))
    environment_.threads += std::stoll(threads);
}

void Evaluation::warn_of_kernels(bool computes) {
  std::set<std::string> cpu_paths;
  if (directory_) cpu_paths = directory_->cpu_paths();
  if (computes) cpu_paths.merge(split(environment_.cpu_path));
  if (auto warning = kernels_warning(cpu_paths, session_.arithmetic().name()))
    warnings_.push_back(std::move(*warning));
}

void Evaluation::begin() {
  describe_ranks();
  open_folder();
  const std::vector<std::set<int64_t>> open = open_documents();
  warn_of_kernels(std::ranges::any_of(open, [](const auto& documents) { return !documents.empty(); }));
  const std::vector<std::set<int64_t>> own = own_part(open);
  for (size_t task = 0; task < runs_.size(); ++task) {
    TaskRun& run = *runs_[task];
    const int64_t all = shard_.empty() ? std::ssize(run.loaded().documents) : std::ssize(shard_[task]);
    documents_finished_ += all - std::ssize(open[task]);
    run.start(session_.decoder(), [&](int64_t doc_id) { return own[task].contains(doc_id); });
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
  for (const auto& run : runs_) {
    const quant::NgramSketch::Overlap overlap = run->overlap(*calibration);
    overlaps_.push_back(overlap.share());
    if (overlap.found == 0) continue;
    warnings_.push_back(fmt::format(
        "task {}: about {:.2g} % of its {}-grams also stand in the text that the model was calibrated on",
        run->task().name, 100.0 * overlap.share(), quant::NgramSketch::kLength));
  }
}

void Evaluation::observe(TaskRun& run) const {
  if (!base_ && !options_.keep_logprobs) return;
  const std::string& task = run.task().name;
  std::unique_ptr<KeptDistributions> kept;
  bool identical = false;
  if (base_) {
    const DivergenceBase identity = base_->identity(task);
    kept = std::make_unique<KeptDistributions>(base_->directory / kept_file(task), task,
                                               session_.model().config.vocab_size);
    identical = identity.weight_hash == weight_hash_ && identity.arithmetic == session_.arithmetic().name() &&
                identity.quantization_hash == quantization_hash();
  }
  run.observe(options_.keep_logprobs, std::move(kept), identical);
}

std::string Evaluation::quantization_hash() const {
  return session_.quantization() ? session_.quantization()->hash : "";
}

std::vector<CompanionFormat> Evaluation::companions() const {
  std::vector<CompanionFormat> out;
  if (base_) {
    std::map<std::string, DivergenceBase> identities;
    for (const auto& run : runs_) identities[run->task().name] = base_->identity(run->task().name);
    out.push_back(divergence_format(identities, kKeptTokens));
  }
  if (options_.keep_logprobs) out.push_back(kept_format(session_.model().config.vocab_size));
  return out;
}

Fingerprint Evaluation::fingerprint() const {
  Fingerprint print{{"weights", weight_hash_},
                    {"tokenizer", session_.tokenizer().hash()},
                    {"arithmetic", session_.arithmetic().name()},
                    {"quantization", quantization_hash()},
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
    print["answers " + task.name] = run->loaded().answer_hash;
    print["data " + task.name] = data_hash(run->loaded());
    if (base_) print["base " + task.name] = base_->identity(task.name).samples_hash;
  }
  if (options_.add_bos) print["add_bos_token"] = encoder_.add_bos_policy();
  if (options_.keep_logprobs) print["logprobs"] = std::to_string(kKeptTokens);
  if (options_.shard) print["shard"] = name(*options_.shard);
  return print;
}

void Evaluation::step() {
  TaskRun& run = *runs_[current_];
  const int64_t before = run.tokens_done();
  for (TaskRun::Finished& finished : run.step()) {
    if (directory_) {
      directory_->append(run.task().name, finished.sample, finished.records);
    } else {
      scores_.push_back(std::move(finished.sample.scores));
    }
    ++documents_finished_;
  }
  tokens_done_ += run.tokens_done() - before;
  advance();
}

TaskResults Evaluation::task_settings(const TaskRun& run) const {
  const LoadedTask& loaded = run.loaded();
  TaskResults task;
  task.name = run.task().name;
  task.version = std::to_string(run.task().version);
  task.split = loaded.split;
  task.num_fewshot = options_.load.num_fewshot;
  task.original_documents = loaded.split_size;
  task.tokens_computed = run.tokens_computed();
  task.data_hash = data_hash(loaded);
  task.prompt_hash = loaded.prompt_hash;
  task.answer_hash = loaded.answer_hash;
  task.first_request_ids = run.first_request_ids();
  return task;
}

void Evaluation::close_task(size_t index) {
  const TaskRun& run = *runs_[index];
  RunDirectory::Finished finished;
  if (directory_) {
    finished = directory_->finish(run.task().name);
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
  TaskResults results = task_settings(run);
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
  if (!options_.shard) runs_[index].reset();
}

std::vector<Evaluation::TaskPlan> Evaluation::plan() const {
  std::vector<TaskPlan> plans;
  for (const auto& run : runs_) {
    if (!run) continue;
    plans.push_back({run->task().name, std::ssize(run->loaded().documents), run->tokens_requested(),
                     run->tokens_computed(), run->tokens_scored()});
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
  if (peers.alone()) return collect(peak_rss_bytes());
  together(peers, [&] {
    if (!peers.is_first()) directory_.reset();  // closes its files
  });
  int64_t peak = 0;
  for (const std::string& of_rank : gather(peers, std::to_string(peak_rss_bytes())))
    peak = std::max(peak, int64_t{std::stoll(of_rank)});
  RunResults run;
  on_first(peers, [&] {
    directory_->absorb_ranks();
    for (size_t task = 0; task < runs_.size(); ++task) close_task(task);
    run = collect(peak);
  });
  return run;
}

RunResults Evaluation::settings() const {
  RunResults run;
  const model::Model& model = session_.model();
  run.model.name = model.name;
  run.model.arithmetic = session_.arithmetic().name();
  run.model.format = model.format;
  run.model.weight_hash = weight_hash_;
  run.model.quantization_hash = quantization_hash();
  run.protocol = name(options_.protocol);
  run.prefix_policy = encoder_.prefix_policy();
  run.add_bos_token = encoder_.add_bos_policy();
  run.tokenizer_hash = session_.tokenizer().hash();
  run.max_length = session_.max_length();
  run.limit = options_.limit;
  run.seed = options_.load.seed;
  run.command = options_.command;
  run.date = started_;
  return run;
}

RunResults Evaluation::collect(int64_t peak_bytes) {
  RunResults run = settings();
  run.tasks = std::move(results_);
  for (const Group& group : selection_.groups) {
    if (options_.shard) {
      run.groups.push_back({group.name, group.tasks, {}, 0, group.weighted});
    } else {
      run.groups.push_back(make_group_results(run, group.name, group.tasks, group.metrics, group.weighted));
    }
  }
  run.model.details = to_json(describe_model(session_));
  run.environment = environment_;
  if (directory_ && !directory_->cpu_paths().empty())
    run.environment.cpu_path = joined(directory_->cpu_paths());
  run.seconds = monotonic_seconds() - started_monotonic_;
  run.peak_rss_bytes = peak_bytes;
  if (options_.shard) {
    ShardRecord record{*options_.shard, fingerprint(), run, {}, {}, {}};
    for (const auto& task : runs_) record.documents[task->task().name] = std::ssize(task->loaded().documents);
    for (const Group& group : selection_.groups) record.group_metrics[group.name] = group.metrics;
    if (options_.keep_logprobs) record.vocab_size = session_.model().config.vocab_size;
    write_shard_record(*options_.output, record);
  } else if (options_.output) {
    write_results(*options_.output, run);
  }
  return run;
}

}  // namespace qeval::eval
