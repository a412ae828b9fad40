#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/peers.h"
#include "eval/base_run.h"
#include "eval/distributed/shard.h"
#include "eval/distributed/split.h"
#include "eval/engine/plan.h"
#include "eval/engine/scored_positions.h"
#include "eval/engine/session.h"
#include "eval/kept_distributions.h"
#include "eval/requests.h"
#include "eval/results/results.h"
#include "eval/results/run_directory.h"
#include "eval/results/sample_file.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/registry.h"
#include "quant/calibrate/calibration_text.h"

namespace qeval::eval {

/// What to evaluate and how.
struct EvaluationOptions {
  std::string tasks;  ///< as -t takes them
  Protocol protocol = Protocol::lm_eval_0_4;
  PrefixToken prefix = PrefixToken::automatic;
  std::optional<bool> add_bos = {};  ///< as RequestEncoder takes it
  LoadOptions load;
  std::string limit;  ///< as given, for the results
  int64_t batch_tokens = 2048;
  std::optional<std::filesystem::path>
      output;  ///< folder of results and samples; none: results are only returned
  bool resume = false;
  /// Keep the likeliest tokens of every scored position (kept_distributions.h), so that other runs can be
  /// compared with this one. Needs an output folder.
  bool keep_logprobs = false;
  /// A finished run of the same tasks that kept them: divergences from it are written. Needs an output
  /// folder.
  std::optional<std::filesystem::path> base;
  std::string command;  ///< the command line that reproduces the run
  std::string version;  ///< of qeval
  int64_t threads = 0;
  /// Score this share of the documents only and write what merge_shards() needs. Needs an output folder.
  std::optional<Shard> shard{};
  /// Who shares the documents that are left to score. Several need an output folder that all of them see.
  Peers peers{};
};

/// One task under way: its documents as token requests, scored batch by batch.
class TaskRun {
 public:
  /// Encodes every document. `skip[i]` says that document i needs no scoring any more. Throws Error naming
  /// task and document for a request that cannot be scored.
  TaskRun(Task task, LoadedTask loaded, const RequestEncoder& encoder, const model::ModelConfig& config,
          int64_t batch_tokens);

  const Task& task() const { return task_; }
  const LoadedTask& loaded() const { return loaded_; }
  /// Input tokens that a run over all documents computes.
  int64_t tokens_computed() const { return tokens_computed_; }
  /// The same if every request were computed alone.
  int64_t tokens_requested() const { return tokens_requested_; }
  /// How much of the task's text a checkpoint was calibrated on.
  quant::NgramSketch::Overlap overlap(const quant::NgramSketch& calibration) const;
  /// Continuation tokens of all requests.
  int64_t tokens_scored() const { return tokens_scored_; }
  /// The costs of the documents of which `wanted(doc_id)` is true; `document` is the doc_id.
  template <typename Wanted>
  std::vector<DocumentCost> costs(const TokenCosts& token_costs, const Wanted& wanted) const {
    std::vector<DocumentRequests> documents;
    for (size_t i = 0; i < loaded_.documents.size(); ++i) {
      const int64_t doc_id = loaded_.documents[i].doc_id;
      if (wanted(doc_id)) documents.push_back({static_cast<size_t>(doc_id), encoded_[i].requests});
    }
    return document_costs(documents, token_costs);
  }
  /// Ids of the first request: shows prefix and special tokens at a glance.
  const std::vector<int64_t>& first_request_ids() const { return first_request_ids_; }

  /// Keeps distributions, or compares them with a base's, from here on. Throws Error naming the first
  /// document that `base` lacks or scored from other token ids. With `identical`, base and this run are the
  /// same model in the same arithmetic, so that what the base did not keep is known to agree as well.
  void observe(bool keep, std::unique_ptr<KeptDistributions> base, bool identical);

  /// A document with its records for the companion files: the divergence's first.
  struct Finished {
    Sample sample;
    std::vector<std::string> records;
  };

  /// Prepares the documents of which `wanted(doc_id)` is true.
  template <typename Wanted>
  void start(model::Decoder& decoder, const Wanted& wanted) {
    std::vector<size_t> open;
    for (size_t i = 0; i < loaded_.documents.size(); ++i) {
      if (wanted(loaded_.documents[i].doc_id)) open.push_back(i);
    }
    start_documents(decoder, open);
  }
  bool done() const { return run_ == nullptr || (run_->done() && !not_finite_); }
  /// Computes the next batch and returns the documents that are complete with it. Where one has a score that
  /// is not finite, the next step throws model::NotFinite naming document, request and layer: after the
  /// others of its batch are kept.
  std::vector<Finished> step();
  int64_t tokens_done() const { return run_ ? run_->tokens_done() : 0; }
  int64_t tokens_to_do() const { return plan_ ? plan_->tokens_computed() : 0; }

 private:
  struct EncodedDocument {
    std::vector<TokenRequest> requests;  ///< per choice, or the windows of a rolling document
    std::vector<int64_t> truncated;
    std::vector<bool> encoded_apart;
    int64_t missing = 0;  ///< requests not scored yet
  };
  EncodedDocument encode(const Document& document, const RequestEncoder& encoder) const;
  void start_documents(model::Decoder& decoder, const std::vector<size_t>& open);
  [[noreturn]] void refuse_not_finite(size_t document, size_t request) const;
  Sample make_sample(size_t document);
  Finished finish(size_t document);
  DistributionHooks hooks();

  /// What is seen of a document's distributions while it is under way.
  struct Observed {
    ScoredPositions positions;
    KeptDocument base, kept;
    DocumentDivergence divergence;
  };
  Observed& observed(size_t document);

  Task task_;
  LoadedTask loaded_;
  std::vector<EncodedDocument> encoded_;
  std::vector<int64_t> first_request_ids_;
  int64_t batch_tokens_;
  int64_t tokens_computed_ = 0, tokens_requested_ = 0, tokens_scored_ = 0;

  std::vector<TokenRequest> requests_;                   ///< of the open documents, flat
  std::vector<std::pair<size_t, size_t>> owner_;         ///< document and its request, per flat request
  std::vector<std::vector<TokenScores>> scores_;         ///< per document and request
  std::optional<std::pair<size_t, size_t>> not_finite_;  ///< a document and its request that has no score
  bool keep_ = false, identical_ = false;
  std::unique_ptr<KeptDistributions> base_;
  std::unordered_map<size_t, Observed> observed_;  ///< of the documents under way
  const model::Decoder* decoder_ = nullptr;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<ScoringRun> run_;
};

/// A whole `qeval eval`: everything named and read is checked by the constructor; then begin(), step() until
/// done(), finish(). Leaving early loses no finished document where there is an output folder.
///
/// With peers, each rank constructs the same evaluation and calls begin() and finish() together with the
/// others; rank 0 owns the output folder, the others keep what they finish in rank-K below it until finish().
class Evaluation {
 public:
  /// `session` must outlive the evaluation.
  Evaluation(Session& session, EvaluationOptions options);
  ~Evaluation();

  /// Throws Error where begin() could not open the output folder: it holds something else, or an unfinished
  /// run that is not to be resumed. Only looks, and makes nothing.
  void check_folder() const;

  /// Opens the output folder and decides which documents this process scores. May add a warning.
  void begin();
  bool done() const { return current_ == runs_.size(); }
  void step();
  /// What the scores depend on. Only before the first step(), but for a shard.
  Fingerprint fingerprint() const;

  /// The costs of a task's documents, per task: of all, or of this shard's.
  std::vector<std::vector<DocumentCost>> costs(const TokenCosts& token) const;

  /// What a task takes when nothing of it is finished. `tokens_requested` counts the input tokens of every
  /// request alone, `tokens_computed` those that sharing leaves, `tokens_scored` the continuations'.
  struct TaskPlan {
    std::string task;
    int64_t documents, tokens_requested, tokens_computed, tokens_scored;
  };
  std::vector<TaskPlan> plan() const;
  /// The cost of the costliest of `parts` shares that the documents are divided into.
  double largest_share(const TokenCosts& costs, int64_t parts) const;
  /// Likewise of the documents that a run of these tasks has not finished in `folder`.
  double largest_share_left(const TokenCosts& costs, int64_t parts,
                            const std::filesystem::path& folder) const;

  /// What to know before the scores are believed, a line each: tasks whose text the checkpoint was calibrated
  /// on.
  const std::vector<std::string>& warnings() const { return warnings_; }

  struct Progress {
    std::string task;
    int64_t tokens_done, tokens_total;  ///< over all tasks, of what this process has to compute
    int64_t documents_done;
  };
  Progress progress() const;
  int64_t documents_finished() const { return documents_finished_; }

  /// The results of all tasks and groups; writes results.json where there is an output folder. Of a shard:
  /// its counts without metrics, and shard.json. Other ranks than the first return results without tasks.
  RunResults finish();

 private:
  std::vector<CompanionFormat> companions() const;
  std::string quantization_hash() const;  ///< empty in float
  std::vector<std::string> task_names() const;
  void check_base() const;
  void observe(TaskRun& run) const;
  void open_folder();
  /// Per task, the documents to be scored: of this shard, and not finished by an earlier run.
  std::vector<std::set<int64_t>> open_documents() const;
  /// Per task, this rank's part of them.
  std::vector<std::set<int64_t>> own_part(const std::vector<std::set<int64_t>>& open) const;
  std::vector<std::set<int64_t>> part_of(const std::vector<std::vector<DocumentCost>>& tasks, int64_t part,
                                         int64_t parts) const;
  void describe_ranks();
  /// Of those of earlier runs in the folder and, if anything is left to compute, those of the ranks.
  void warn_of_kernels(bool computes);
  void advance();
  void close_task(size_t index);
  /// What results.json has of the run's and a task's settings, before anything is scored.
  RunResults settings() const;
  TaskResults task_settings(const TaskRun& run) const;
  RunResults collect(int64_t peak_bytes);
  void check_overlap();

  Session& session_;
  EvaluationOptions options_;
  Selection selection_;
  RequestEncoder encoder_;
  std::vector<std::unique_ptr<TaskRun>> runs_;
  std::string weight_hash_;
  std::optional<BaseRun> base_;
  std::unique_ptr<RunDirectory> directory_;
  std::vector<Scores> scores_;  ///< of the current task, where there is no folder
  std::vector<TaskResults> results_;
  std::vector<std::set<int64_t>> shard_;  ///< per task, its documents; no task: all
  std::vector<double> overlaps_;          ///< per task; empty where nothing is known of the calibration text
  std::vector<std::string> warnings_;
  Environment environment_;  ///< of all ranks
  size_t current_ = 0;
  int64_t tokens_done_ = 0, tokens_total_ = 0, documents_finished_ = 0;
  double started_ = 0, started_monotonic_ = 0;
};

}  // namespace qeval::eval
