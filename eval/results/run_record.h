#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace qeval::eval {

/// Everything that a score depends on, as flat text: weight and tokenizer hashes, task versions, hashes of
/// prompts, of what answers are judged by and of data, arithmetic, quantization, protocol, prefix policy,
/// max_length, few-shot, limit, seed, version of qeval. Not what a score is independent of: threads, batch
/// size.
using Fingerprint = std::map<std::string, std::string>;

/// "arithmetic (float there, fake here), weights (3f29ab…  there, 91cc04… here)", "" where they agree. Long
/// values are cut.
std::string describe_changes(const Fingerprint& there, const Fingerprint& here);

/// DIRECTORY/run.json, the fingerprint.
inline constexpr const char* run_file = "run.json";

/// What a shard's folder has in the place of results.json.
inline constexpr const char* shard_file = "shard.json";

/// The fingerprint of the run in a folder, nothing where there is no run. Throws Error naming the file for
/// damage.
std::optional<Fingerprint> read_fingerprint(const std::filesystem::path& directory);
void write_fingerprint(const std::filesystem::path& directory, const Fingerprint& fingerprint);

}  // namespace qeval::eval
