#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>

namespace qeval::eval {

/// Everything that a score depends on, as flat text: weight and tokenizer hashes, task versions, hashes of
/// prompts, of what answers are judged by and of data, arithmetic, quantization, protocol, prefix policy,
/// max_length, few-shot, limit, seed, version of qeval. Not what a score is independent of: threads, batch
/// size.
using Fingerprint = std::map<std::string, std::string>;

/// The fingerprint's "fewshot": the number of examples where it is the same for all tasks, else those of the
/// tasks in their order, with commas.
std::string fewshot_setting(std::span<const int64_t> examples);

/// "arithmetic (float there, fake here), weights (3f29ab…  there, 91cc04… here)", "" where they agree. Long
/// values are cut.
std::string describe_changes(const Fingerprint& there, const Fingerprint& here);

/// DIRECTORY/run.json.
inline constexpr const char* run_file = "run.json";

/// What a shard's folder has in the place of results.json.
inline constexpr const char* shard_file = "shard.json";

/// What a run tells of itself from the start.
struct RunRecord {
  Fingerprint fingerprint;
  /// The kernels ("avx2") that its finished documents were computed by. Another one is no reason to refuse
  /// the folder. Records of before they were kept have none.
  std::set<std::string> cpu_paths;
};

/// The record of the run in a folder, nothing where there is no run. Throws Error naming the file for damage.
std::optional<RunRecord> read_run_record(const std::filesystem::path& directory);
void write_run_record(const std::filesystem::path& directory, const RunRecord& record);

}  // namespace qeval::eval
