#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "eval/base_run.h"
#include "eval/encoded_tasks.h"
#include "eval/engine/session.h"
#include "eval/evaluation_options.h"
#include "eval/results/results.h"
#include "eval/run_folder.h"
#include "eval/task_run.h"

namespace qeval::eval {

/// A whole `qeval eval`: everything named and read is checked by the constructor; then begin(), step() until
/// done(), finish(). Leaving early loses no finished document where there is an output folder.
///
/// With peers, each rank constructs the same evaluation and calls begin() and finish() together with the
/// others; rank 0 owns the output folder, the others keep what they finish in rank-K below it until finish().
class Evaluation {
 public:
  /// `session` must outlive the evaluation.
  Evaluation(Session& session, EvaluationOptions options);
  /// The same with tasks that encode_tasks() has made, of the same options, for a session of the same
  /// checkpoint: further arithmetics of it read and encode nothing again.
  Evaluation(Session& session, EvaluationOptions options, EncodedTasks tasks);
  ~Evaluation();

  /// Throws Error where begin() could not open the output folder: it holds something else, or an unfinished
  /// run that is not to be resumed. Only looks, and makes nothing.
  void check_folder();

  /// Opens the output folder and decides which documents this process scores. May add a warning.
  void begin();
  bool done() const { return current_ == runs_.size(); }
  void step();
  /// What the scores depend on. Only before the first step(), but for a shard.
  Fingerprint fingerprint();

  /// The costs of a task's documents, per task: of all, or of this shard's.
  std::vector<std::vector<DocumentCost>> costs(const TokenCosts& token) const;

  /// What a task takes when nothing of it is finished. `tokens_requested` counts the input tokens of every
  /// request alone, `tokens_computed` those that sharing leaves, `tokens_scored` the continuations', or the most
  /// that may be written where the task `generates`.
  struct TaskPlan {
    std::string task;
    int64_t documents, tokens_requested, tokens_computed, tokens_scored;
    bool generates;
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
  void check_base();
  void check_overlap();
  void observe(TaskRun& run) const;
  /// Per task, all documents: of this shard where there is one.
  DocumentSets documents() const;
  /// Per task, this rank's part of them.
  DocumentSets own_part(const DocumentSets& open) const;
  void describe_ranks();
  /// Of those of earlier runs in the folder and, if anything is left to compute, those of the ranks.
  void warn_of_kernels(bool computes);
  void advance();
  void close_task(size_t index);
  RunResults collect(int64_t peak_bytes);

  Session& session_;
  EvaluationOptions options_;
  EncodedTasks tasks_;
  std::vector<std::unique_ptr<TaskRun>> runs_;
  std::optional<BaseRun> base_;
  RunFolder folder_;
  std::vector<Scores> scores_;  ///< of the current task, where there is no folder
  std::vector<TaskResults> results_;
  DocumentSets shard_;            ///< per task, its documents; no task: all
  std::vector<double> overlaps_;  ///< per task; empty where nothing is known of the calibration text
  std::vector<std::string> warnings_;
  Environment environment_;  ///< of all ranks
  size_t current_ = 0;
  int64_t tokens_done_ = 0, tokens_total_ = 0, documents_finished_ = 0;
  double started_ = 0, started_monotonic_ = 0;
};

}  // namespace qeval::eval
