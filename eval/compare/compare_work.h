#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/directory_lock.h"
#include "eval/compare/compare_options.h"
#include "eval/compare/layout.h"
#include "eval/compare/schedule.h"
#include "eval/compare/text_stage.h"
#include "eval/evaluation.h"
#include "eval/results/comparison.h"

namespace qeval::eval {

/// What the work tells while it runs. All may throw, which ends the run; what is finished stays.
struct CompareObserver {
  /// What is being done, tokens done and in all.
  std::function<void(const std::string& what, int64_t done, int64_t total)> progress;
  /// A step of the plan was finished just now, and took so long.
  std::function<void(const std::string& step, double seconds)> finished;
  /// What to know before the results are believed (Evaluation::warnings).
  std::function<void(const std::string& warning)> warning;
};

/// Carries a comparison out, in the folder that CompareLayout describes. Doing the same one again in the same
/// folder continues it; one with other settings is refused, naming what differs. Killed at any point and
/// continued, it gives the same files apart from times.
class CompareWork {
 public:
  /// Loads the base and the given models and checks that everything named exists and can be computed.
  explicit CompareWork(CompareOptions options);
  ~CompareWork();
  CompareWork(const CompareWork&) = delete;
  CompareWork& operator=(const CompareWork&) = delete;

  const CompareOptions& options() const { return options_; }

  /// Throws Error where the output folder holds something else than this comparison. Only looks, and makes
  /// nothing.
  void check_folder() const;

  /// Creates and locks the output folder, and checks it as check_folder() does. Before run().
  ///
  /// With peers (options.evaluation.peers) every rank makes the same object and calls this and run() together
  /// with the others; the first one writes, reads and decides.
  void open_folder();

  /// The steps in order, with the time they take on `ranks` machines like this one. Times follow from forward
  /// passes that are measured here and now.
  std::vector<CompareStep> plan(int64_t ranks = 1);
  /// Bytes that the work leaves in the folder, about.
  int64_t disk_bytes() const;

  /// Does what is not finished and returns the comparison, which is also written (nothing on other ranks).
  Comparison run(const CompareObserver& observer);

  /// The divergences on the text, where there is one; after run().
  const DivergenceResults* text() const { return text_ ? &text_->results() : nullptr; }

 private:
  /// Loads the given models and gives them labels and arithmetics.
  void resolve_given();
  Fingerprint given_fingerprint() const;
  SessionOptions session_options(const ComparisonEntry& entry) const;
  void measure_text(const std::vector<ComparisonEntry>& entries, const CompareObserver& observer);
  /// Of the made models, that whose fake run is nearest to the base; known on the first rank.
  const MadeModel& nearest_made(const Comparison& comparison);
  const Peers& peers() const { return options_.evaluation.peers; }
  /// What the first rank finds.
  bool first_finds(const std::function<bool()>& check) const;
  /// The checkpoint of an entry, which stays loaded until another one is asked for; the base and the given
  /// ones always.
  std::shared_ptr<LoadedModel> loaded(const std::filesystem::path& model);
  void evaluate(const ComparisonEntry& entry, const CompareObserver& observer);
  void quantize(const MadeModel& made, const CompareObserver& observer);
  ComparedRun read(const ComparisonEntry& entry) const;

  CompareOptions options_;
  std::shared_ptr<LoadedModel> base_;
  std::unique_ptr<Session> base_session_;
  std::map<std::filesystem::path, std::shared_ptr<LoadedModel>> given_;
  std::vector<std::string> given_identity_;  ///< hashes of the given models, parallel to them
  std::optional<CompareLayout> layout_;
  std::optional<TextStage> text_;
  std::unique_ptr<Evaluation> planned_;  ///< of the base, until the work starts
  Fingerprint settings_;
  EncodedTasks base_tasks_;  ///< of the base, until it is evaluated
  std::filesystem::path recent_path_;
  std::shared_ptr<LoadedModel> recent_;
  std::optional<EncodedTasks> recent_tasks_;
  std::unique_ptr<DirectoryLock> lock_;
  quant::Observations observations_;
  int64_t scored_tokens_ = 0;
};

}  // namespace qeval::eval
