#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/results/results.h"

namespace qeval::eval {

/// What a result folder's samples say, against what its results.json says.
struct Recomputed {
  RunResults stored;   ///< results.json as it stands
  RunResults derived;  ///< the same with metrics, counts and groups made anew from the samples
  int64_t documents = 0;
  std::vector<std::string> differences;  ///< one line each, naming file, task and field; empty: all agrees
};

/// Derives every metric, standard error, count and group mean of DIRECTORY/results.json from its samples
/// files alone and compares: numbers to 1e-12 relative (another machine's exp may differ in the last place),
/// counts exactly. Also checks each line: its checksum, and that the values in it which follow from others
/// (metric values, hashes, filtered responses) are what we would write; and each samples file's hash. A
/// damaged or missing file is an Error.
Recomputed recompute(const std::filesystem::path& directory);

}  // namespace qeval::eval
