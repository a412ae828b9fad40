#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eval/results/results.h"

namespace qeval::eval {

struct Merged {
  RunResults results;
  /// What to know before the scores are believed, a line each: shards that were computed by different
  /// kernels.
  std::vector<std::string> warnings;
};

/// Puts the finished shards of a run, given in any order, together in the folder `output`, as one process
/// would have left it: the same samples, log-probabilities and metrics to the byte. `seconds` is the sum over
/// the shards, peak_rss_bytes the largest. The shards stay as they are. Killed and done again, it continues.
///
/// Throws Error naming the folders: a shard that is missing, there twice, unfinished, damaged, or of a run
/// with other settings, with what differs.
Merged merge_shards(std::span<const std::filesystem::path> shards, const std::filesystem::path& output,
                    const std::string& command);

}  // namespace qeval::eval
