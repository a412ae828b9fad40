#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eval/results/results.h"
#include "eval/results/statistics.h"

namespace qeval::eval {

/// Resamples behind a difference that the bootstrap tests, where the options ask for fewer. Its p is at least
/// 2 / (1 + resamples), and Holm multiplies it by the number of comparisons: a thousand would let no
/// perplexity of a report with 25 comparisons become significant.
inline constexpr int least_comparison_resamples = 20'000;

/// One metric of one task in two runs over the same documents.
struct MetricComparison {
  std::string metric;
  double base = 0, other = 0;  ///< the metric in either run
  /// Means: other − base. Perplexities: ln other − ln base (positive is worse; exp(delta) − 1 is the relative
  /// increase). Bits per byte: other − base. Metrics that are right or wrong per document by
  /// paired_proportions, all others and unweighted means by paired_bootstrap.
  PairedDifference difference;
  bool right_or_wrong = false;  ///< 0 or 1 per document, so that there are flips:
  /// Documents right in base and wrong in other, and the reverse.
  std::vector<int64_t> lost, gained;
};

struct TaskComparison {
  std::string task;
  int64_t documents = 0;
  std::vector<MetricComparison> metrics;  ///< in the order of the base's; those that both have
};

/// Compares two runs of a task, paired by document. Refuses (Error that names the first document at fault)
/// unless both hold the same documents, scored by the same rule, from the same token ids. Both in ascending
/// order of doc_id. A run against itself gives differences of exactly 0, no flips and p = 1.
TaskComparison compare_documents(const std::string& task, std::span<const Scores> base,
                                 std::span<const Scores> other, const BootstrapOptions& options = {});

/// The tasks of a group as one, in the metrics that it averages (its tasks may have others besides): the
/// documents of all of them together, `base[i]` and `other[i]` being those of its i-th task. Where its
/// headline is the unweighted mean of its tasks, that too: paired_bootstrap with a document of a task of n
/// documents having value v/n and weight 1/n, so that Σv/n / Σ1/n is the mean of the tasks' means. Refuses,
/// besides, tasks of different scoring: their documents have no mean.
TaskComparison compare_group(const GroupResults& group, std::span<const std::vector<Scores>> base,
                             std::span<const std::vector<Scores>> other,
                             const BootstrapOptions& options = {});

/// compare_documents from two result folders' samples_TASK.jsonl.
TaskComparison compare_folders(const std::string& task, const std::filesystem::path& base,
                               const std::filesystem::path& other, const BootstrapOptions& options = {});

}  // namespace qeval::eval
