#include "eval/distributed/merge.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/setting.h"
#include "eval/distributed/shard_record.h"
#include "eval/kept_distributions.h"
#include "eval/results/checked_sum.h"
#include "eval/results/cpu_paths.h"
#include "eval/results/divergence.h"
#include "eval/results/model_details.h"
#include "eval/results/sample_file.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

struct ShardFolder {
  fs::path path;
  ShardRecord record;
};

ShardFolder read_folder(const fs::path& path) {
  std::error_code code;
  if (!fs::exists(path / shard_file, code)) {
    if (!fs::is_directory(path, code)) fail("{}: no folder of a shard", path.string());
    if (fs::exists(path / results_file, code))
      fail("{}: holds results of a whole run; expected: a folder that eval {} wrote", path.string(),
           setting("shard"));
    const std::optional<RunRecord> begun = read_run_record(path);
    if (!begun || !begun->fingerprint.contains("shard"))
      fail("{}: holds no {}; expected: a folder that eval {} wrote", path.string(), shard_file,
           setting("shard"));
    fail("{}: shard {} is not finished; its command with {} continues", path.string(),
         printable(begun->fingerprint.at("shard")), setting("resume"));
  }
  return {path, read_shard_record(path)};
}

Fingerprint without_shard(Fingerprint fingerprint) {
  fingerprint.erase("shard");
  return fingerprint;
}

/// Sorted by index; throws unless they are 1/n to n/n of one run, each once.
void check_shards(std::vector<ShardFolder>& shards) {
  if (shards.empty()) fail("no shards to merge; expected: their folders");
  const ShardFolder& first = shards.front();
  const int64_t count = first.record.shard.count;
  for (const ShardFolder& shard : shards) {
    const std::string changes =
        describe_changes(without_shard(first.record.fingerprint), without_shard(shard.record.fingerprint));
    if (!changes.empty()) {
      fail("{} and {} are of runs with different settings: {}", first.path.string(), shard.path.string(),
           changes);
    }
    if (shard.record.shard.count != count) {
      fail("{} is shard {}, {} is shard {}: all must be of the same number", first.path.string(),
           name(first.record.shard), shard.path.string(), name(shard.record.shard));
    }
  }
  std::ranges::stable_sort(shards, {}, [](const ShardFolder& shard) { return shard.record.shard.index; });
  for (size_t i = 1; i < shards.size(); ++i) {
    if (shards[i].record.shard == shards[i - 1].record.shard) {
      fail("{} and {} are both shard {}", shards[i - 1].path.string(), shards[i].path.string(),
           name(shards[i].record.shard));
    }
  }
  std::string missing;
  size_t next = 0;
  for (int64_t index = 1; index <= count; ++index) {
    if (next < shards.size() && shards[next].record.shard.index == index) {
      ++next;
      continue;
    }
    missing += (missing.empty() ? "" : ", ") + name(Shard{index, count});
    constexpr size_t kShown = 200;
    if (missing.size() > kShown) {
      missing += ", …";
      break;
    }
  }
  if (!missing.empty()) fail("of {} shards these are missing: {}", count, missing);
}

/// The samples and their companions are those that shard.json describes.
void check_files(const ShardFolder& shard, std::span<const CompanionFormat> companions) {
  const auto check = [&](const std::string& name, const std::string& hash) {
    const fs::path path = shard.path / name;
    if (sha256_hex(MappedFile(path).text()) != hash)
      fail("{}: is not the file that {} beside it describes (its SHA-256 differs)", path.string(),
           shard_file);
  };
  for (const TaskResults& task : shard.record.run.tasks) {
    check(samples_file(task.name), task.samples_hash);
    for (const CompanionFormat& format : companions) {
      if (!format.is_of(task.name)) continue;
      const std::string name = file_of_task(format.prefix, task.name, format.extension);
      const auto hash = task.companion_hashes.find(name);
      if (hash == task.companion_hashes.end())
        fail("{}: records no hash of {}", (shard.path / shard_file).string(), name);
      check(name, hash->second);
    }
  }
}

std::vector<CompanionFormat> companions(const std::vector<ShardFolder>& shards) {
  const ShardFolder& first = shards.front();
  std::vector<CompanionFormat> out;
  std::map<std::string, DivergenceBase> bases;
  int64_t kept = kKeptTokens;
  for (const TaskResults& task : first.record.run.tasks) {
    if (!first.record.fingerprint.contains("base " + task.name)) continue;
    const TaskDivergence divergence = read_divergence(first.path / divergence_file(task.name), task.name);
    bases[task.name] = divergence.base;
    kept = divergence.kept;
  }
  if (!bases.empty()) out.push_back(divergence_format(bases, kept));
  if (first.record.vocab_size == 0) return out;
  CompanionFormat kept_distributions = kept_format(first.record.vocab_size);
  kept_distributions.tasks.emplace();  // a task that generates keeps none
  for (const ShardFolder& shard : shards) {
    for (const TaskResults& task : shard.record.run.tasks) {
      if (task.companion_hashes.contains(kept_file(task.name))) kept_distributions.tasks->insert(task.name);
    }
  }
  out.push_back(std::move(kept_distributions));
  return out;
}

/// What the shards say in a field of their environment, each once.
std::set<std::string> all_of(const std::vector<ShardFolder>& shards, std::string Environment::*field) {
  std::set<std::string> out;
  for (const ShardFolder& shard : shards) out.merge(split(shard.record.run.environment.*field));
  return out;
}

void add_costs(const std::vector<ShardFolder>& shards, RunResults& run) {
  run.seconds = 0;
  for (const ShardFolder& shard : shards) {
    run.seconds += shard.record.run.seconds;
    run.peak_rss_bytes = std::max(run.peak_rss_bytes, shard.record.run.peak_rss_bytes);
    run.date = std::min(run.date, shard.record.run.date);
  }
  run.environment.cpu = joined(all_of(shards, &Environment::cpu));
  run.environment.cpu_path = joined(all_of(shards, &Environment::cpu_path));
}

}  // namespace

Merged merge_shards(std::span<const fs::path> folders, const fs::path& output, const std::string& command) {
  std::vector<ShardFolder> shards;
  for (const fs::path& path : folders) {
    std::error_code code;
    if (fs::equivalent(path, output, code)) fail("{}: is a shard; choose another output", output.string());
    shards.push_back(read_folder(path));
  }
  check_shards(shards);
  const std::vector<CompanionFormat> formats = companions(shards);
  for (const ShardFolder& shard : shards) check_files(shard, formats);
  const ShardRecord& first = shards.front().record;
  std::vector<std::string> tasks;
  for (const TaskResults& task : first.run.tasks) tasks.push_back(task.name);

  Merged merged{first.run, {}};
  RunResults& run = merged.results;
  RunDirectory directory(output, without_shard(first.fingerprint), tasks, true, formats);
  for (const ShardFolder& shard : shards) directory.absorb(shard.path);
  for (TaskResults& task : run.tasks) {
    const RunDirectory::Finished finished = directory.finish(task.name);
    const int64_t expected = first.documents.at(task.name);
    int64_t held = 0;  // more than are finished where shards share documents
    for (const ShardFolder& shard : shards) {
      const TaskResults* part = shard.record.run.find_task(task.name);
      add_count(held, part == nullptr ? 0 : part->counts.documents);
    }
    if (std::ssize(finished.scores) != expected || held != expected) {
      fail("task {}: the shards hold {} documents, {} different ones; expected: {}, each once", task.name,
           held, finished.scores.size(), expected);
    }
    const TaskResults computed = make_task_results(task.name, finished.scores, run.bootstrap);
    task.metrics = computed.metrics;
    task.counts = computed.counts;
    task.samples_hash = finished.samples_hash;
    task.companion_hashes = finished.companion_hashes;
    task.logits_hash = computed.logits_hash;
  }
  std::vector<GroupResults> groups = std::move(run.groups);
  run.groups.clear();
  for (const GroupResults& group : groups) {
    run.groups.push_back(make_group_results(run, group.name, group.members,
                                            first.group_metrics.at(group.name), group.weighted));
  }
  add_costs(shards, run);
  run.command = command;
  const bool integers_only =
      run.model.arithmetic == "integer" && model_details(run.model, output.string()).integer_linears.empty();
  if (auto warning = kernels_warning(split(run.environment.cpu_path), integers_only))
    merged.warnings.push_back(std::move(*warning));
  write_results(output, run);
  return merged;
}

}  // namespace qeval::eval
