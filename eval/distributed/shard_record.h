#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "eval/distributed/shard.h"
#include "eval/results/results.h"
#include "eval/results/run_directory.h"

namespace qeval::eval {

/// What a finished shard leaves in the place of results.json, besides its samples: shard.json.
struct ShardRecord {
  Shard shard;
  Fingerprint fingerprint;  ///< of the run, "shard" included
  /// What would stand in results.json, without metrics; counts and samples_hash are of the shard's documents,
  /// all else of the whole run.
  RunResults run;
  std::map<std::string, int64_t> documents;                       ///< per task, of all shards
  std::map<std::string, std::vector<std::string>> group_metrics;  ///< what a group averages
  int64_t vocab_size = 0;  ///< of the log-probabilities kept; 0: none are
};

void write_shard_record(const std::filesystem::path& directory, const ShardRecord& record);
/// Throws Error naming file and field for what is missing or malformed.
ShardRecord read_shard_record(const std::filesystem::path& directory);

}  // namespace qeval::eval
