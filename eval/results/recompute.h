#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eval/results/results.h"

namespace qeval::eval {

/// A samples file as it was read.
struct CheckedSamples {
  std::vector<Scores> documents;         ///< ascending doc_id
  std::vector<std::string> differences;  ///< one line each, naming file and field; empty: all agrees
};

/// Reads DIRECTORY/samples_TASK.jsonl and checks each line (that the values in it which follow from others,
/// as metric values, hashes and filtered responses do, are what we would write) and the file's hash against
/// stored.samples_hash, which stands in the file `recorded_in`. A line with a wrong checksum, documents out
/// of order and a missing file are Errors.
CheckedSamples check_samples(const std::filesystem::path& directory, const TaskResults& stored,
                             const char* recorded_in = results_file);

struct CheckedMetrics {
  TaskResults derived;  ///< as stored, but with metrics, counts and logits_hash of the documents
  std::vector<std::string> differences;
};

/// Derives a task's metrics and standard errors, counts and logits_hash from its documents and compares:
/// numbers to 1e-12 relative (another machine's exp may differ in the last place), the rest exactly.
CheckedMetrics check_metrics(const TaskResults& stored, std::span<const Scores> documents,
                             const BootstrapOptions& bootstrap);
/// The counts alone, which are all that a shard has.
std::vector<std::string> count_differences(const TaskResults& stored, std::span<const Scores> documents,
                                           const char* recorded_in = results_file);

/// Makes the groups of `run` anew from its tasks, and says where that changed them.
std::vector<std::string> rederive_groups(RunResults& run);

/// What a result folder's samples say, against what its results.json says.
struct Recomputed {
  RunResults stored;   ///< results.json as it stands
  RunResults derived;  ///< the same with metrics, counts and groups made anew from the samples
  int64_t documents = 0;
  std::vector<std::string> differences;  ///< one line each, naming file, task and field; empty: all agrees
};

/// Derives every metric, standard error, count and group mean of DIRECTORY/results.json from its samples
/// files alone, by the functions above. A damaged or missing file is an Error.
Recomputed recompute(const std::filesystem::path& directory);

}  // namespace qeval::eval
