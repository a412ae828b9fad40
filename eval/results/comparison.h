#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/results/compare.h"
#include "eval/results/comparison_file.h"
#include "eval/results/divergence.h"
#include "eval/results/results.h"
#include "eval/results/written_texts.h"

namespace qeval::eval {

/// One finished run and the folder it lies in.
struct ComparedRun {
  std::string name;  ///< as tables show it
  std::filesystem::path directory;
  RunResults results;
};

/// A task of a run against the same task of the base.
struct TaskDifference {
  TaskComparison comparison;
  /// KL and agreement, where the run has divergence_TASK.jsonl.
  std::optional<DivergenceSummary> divergence;
  std::optional<WrittenTexts> texts = {};  ///< of tasks that generate
};

/// A run against the base. Tasks in the base's order; groups that have metrics of their own, over the
/// documents of all their tasks together.
struct RunDifference {
  std::vector<TaskDifference> tasks;
  std::vector<TaskComparison> groups;

  const TaskDifference* find_task(std::string_view task) const;
  const TaskComparison* find_group(std::string_view group) const;
};

/// One test of the report's family: the headline metric of a task, or of a group in place of its tasks.
struct HeadlineTest {
  size_t run = 0;    ///< index among the runs compared
  std::string name;  ///< task or group
  std::string metric;
  double p_value = 1;
  double adjusted_p = 1;  ///< Holm over all tests of the family
};

struct Comparison {
  ComparedRun base;
  std::vector<ComparedRun> runs;
  std::vector<RunDifference> differences;  ///< parallel to runs
  std::vector<HeadlineTest> tests;         ///< run by run, in the base's order of names

  const HeadlineTest* find_test(size_t run, std::string_view name) const;
};

/// compare_runs() run by run, as they are finished: each is compared once.
class ComparisonBuilder {
 public:
  explicit ComparisonBuilder(ComparedRun base, const BootstrapOptions& options = {})
      : comparison_{std::move(base), {}, {}, {}}, options_(options) {}

  /// Compares the run with the base; Errors as compare_runs() has them.
  void add(ComparedRun run);
  /// Without tests, which belong to all runs together.
  const Comparison& so_far() const { return comparison_; }
  Comparison finish() &&;

 private:
  Comparison comparison_;
  BootstrapOptions options_;
};

/// Index of the run, from `first` on, whose predictions are nearest to the base's: with the least KL
/// divergence, the mean over the scored positions of all its tasks; where no run has divergences, with the
/// largest mean agreement of texts. A run without either is farther than any other, and of equals the first
/// is taken; at least one run.
size_t nearest_run(const Comparison& comparison, size_t first = 0);

/// Reads the folders and compares each run with the base, document by document. Where both runs have a task,
/// it must be of the same documents and token ids (Error, see compare_documents); a task that only one of
/// them has is left out, and runs that share no task are an Error. A divergence file that was measured from
/// another base is an Error. A run against itself gives exactly 0 everywhere.
Comparison compare_runs(const ComparedRun& base, std::vector<ComparedRun> runs,
                        const BootstrapOptions& options = {});

/// results.json of a comparison: {"comparison": 3, "base": {"name", "results"}, "runs": [{"name", "results"
/// (as in its own results.json), "tasks": {TASK: {"documents", "metrics": {METRIC: {"base", "value", "delta",
/// "interval_95"
/// ([low, high], or null where there is none), "p", "test", "lost", "gained" (how many), "lost_documents",
/// "gained_documents"}}, "divergence": {"documents", "positions", "mean_kl", "mean_kl_upper", "kl_99",
/// "max_kl", "top1_agreement", "blocks" ([tokens, sum of KL] of each document)}, "texts": {"documents",
/// "equal", "agreement", "first_difference" (or null), "metrics" (likewise, of WrittenTexts::habits)}}},
/// "groups": {likewise}}],
/// "tests":
/// [{"run", "name", "metric", "p", "p_holm"}]}.
nlohmann::ordered_json to_json(const Comparison& comparison);

/// DIRECTORY/compare.json and DIRECTORY/results.json (to_json), each replaced atomically.
void write_comparison(const std::filesystem::path& directory, const ComparisonFile& file,
                      const Comparison& comparison);

/// The comparison that write_comparison() left in DIRECTORY, with its runs' folders. Nothing where there is
/// none, or one of other runs or other results than the folders hold now, or of an older version: it is to be
/// made anew. Throws Error naming file and field for what is malformed.
std::optional<Comparison> read_comparison(const std::filesystem::path& directory, const ComparisonFile& file);

}  // namespace qeval::eval
