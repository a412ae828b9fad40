#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace qeval::eval {

/// One thing that verify() looked at.
struct Check {
  std::filesystem::path subject;  ///< the file or folder
  std::string finding;  ///< one line: what is so, or the first thing that is wrong and how many more
  bool passed = false;
};

/// Whether a result folder is as it was written: of a run, of a shard, or of a comparison with all its runs.
/// `report` hears of each check as it is done; returns whether all of them passed. Only files in the folder
/// are read; none of them is changed.
///
/// - results.json (shard.json): its content_hash. It does not cover date, seconds, memory, environment and
///   command, nor what quantizing the model cost: they differ between two runs of the same evaluation.
///   No key stands twice or is unknown, and what stands in several sections agrees.
/// - run.json: the settings, all of them and no others, are those of results.json. The kernels there are not
///   compared, as the environment is not.
/// - every samples file: its hash, the checksum of each line, what in a line follows from the rest of it.
/// - every companion file (divergences, kept distributions): its hash; divergences are also of the documents
///   and the base that the run had.
/// - metrics, standard errors, counts and group means follow from the samples.
/// - no samples or companions lie there that the results do not name, and nothing unfinished.
/// - of a comparison: all of this for each run; method, variant, scheme and arithmetic in compare.json are
///   those of the runs; results.json follows from the runs. Not covered: the commands and the folders of
///   checkpoints in compare.json, and matrix.json.
///
/// Against damage and mistakes, not against a forger, who could write a whole folder anew.
bool verify(const std::filesystem::path& directory, const std::function<void(const Check&)>& report);

}  // namespace qeval::eval
