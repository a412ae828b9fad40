#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/results/block_statistics.h"
#include "eval/results/companion_file.h"

namespace qeval::eval {

/// Which run a divergence is measured from, and on what: a file that belongs to another base, or to other
/// samples of it, is refused.
struct DivergenceBase {
  std::string weight_hash, arithmetic, quantization_hash;  ///< of the base's model
  std::string samples_hash;                                ///< of the base's samples of this task
  bool operator==(const DivergenceBase&) const = default;
};

/// How the next-token distributions of one document differ from the base's. A scored position is a distinct
/// sequence of tokens after which something is scored: choices that share one count it once. Positions stand
/// in the order of the document's requests, from left to right.
struct DocumentDivergence {
  int64_t doc_id = 0;
  std::string token_hash;  ///< that of the document's sample
  /// KL(base ‖ this) per position, nats, the tokens that the base kept (its likeliest) taken one by one and
  /// all others as one outcome: Σ_kept p·ln(p/q) + p_rest·ln(p_rest/q_rest). By the log-sum inequality the
  /// true value is at least this much …
  std::vector<float> kl;
  /// … and at most this much more: p_rest·(ln min(p_min, p_rest) − ln q_min − ln p_rest + ln q_rest), p_min
  /// the smallest kept probability of the base, q_min the smallest of this run outside the kept tokens. 0
  /// where the base kept all tokens or all but one.
  std::vector<float> slack;
  std::vector<int64_t>
      disagreements;  ///< positions whose arg-max is another token than the base's, ascending
  bool operator==(const DocumentDivergence&) const = default;
};

/// divergence_TASK.jsonl: a header line naming the base, then a line per document in ascending order of
/// doc_id. Every line ends in a checksum (checked_line.h).
struct TaskDivergence {
  DivergenceBase base;
  int64_t kept = 0;  ///< most tokens that the base kept per position
  std::vector<DocumentDivergence> documents;
};

/// "divergence_TASK.jsonl"; throws Error for a task name that is no file name.
std::string divergence_file(std::string_view task);

/// The lines without their newlines; the same content gives the same bytes on any machine.
std::string divergence_header(std::string_view task, const DivergenceBase& base, int64_t kept);
std::string divergence_line(const DocumentDivergence& document);
/// The inverse of divergence_line; throws Error opening with `where` for a damaged line, a field of the wrong
/// type, lists of unequal length or a position that is none.
DocumentDivergence parse_divergence_line(std::string_view line, std::string_view where);

/// Reads and checks the whole file: header of this task, every line, ascending documents. Errors name file
/// and line.
TaskDivergence read_divergence(const std::filesystem::path& path, std::string_view task);

/// The file while a run writes it, document by document (run_directory.h), of the tasks that have a base.
CompanionFormat divergence_format(const std::map<std::string, DivergenceBase>& base_of_task, int64_t kept);

/// Over all scored positions of a task.
struct DivergenceSummary {
  int64_t documents = 0, positions = 0;
  double mean_kl = 0;              ///< nats, a lower bound (see DocumentDivergence)
  double mean_kl_upper = 0;        ///< the mean is at most this
  double kl_99 = 0;                ///< 99 % quantile of the positions' lower bounds
  double max_kl = 0;               ///< largest of them
  double top1_agreement = 1;       ///< share of positions with the base's arg-max
  std::vector<BlockSum> blocks{};  ///< of the divergence: documents, which are independent of one another
};

/// Documents in any order. Without any position: all zero, agreement 1. A NaN at any position (a broken
/// model) makes the first four NaN.
DivergenceSummary summarize(std::span<const DocumentDivergence> documents);

}  // namespace qeval::eval
