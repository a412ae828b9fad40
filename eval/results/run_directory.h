#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/directory_lock.h"
#include "eval/results/companion_file.h"
#include "eval/results/run_record.h"
#include "eval/results/sample.h"

namespace qeval::eval {

/// Where rank `rank` ≥ 1 of a run in `directory` keeps what it has finished.
std::filesystem::path rank_folder(const std::filesystem::path& directory, int64_t rank);

/// The documents of a task that the run in `directory` has finished, its ranks included; none where there is
/// no run. Only reads, so the folder may be in use. Throws Error naming file and line for damage.
std::set<int64_t> finished_documents(const std::filesystem::path& directory, const std::string& task);

/// Throws Error where RunDirectory would refuse to open the folder. Only looks, and makes nothing. `tasks`
/// are the names of all tasks of the run (part of the fingerprint, as "tasks").
void check_run_directory(const std::filesystem::path& directory, Fingerprint fingerprint,
                         const std::vector<std::string>& tasks, bool resume);

/// Where a run keeps what it has finished, so that a killed run loses at most the document under way.
///
/// Files: run.json (run_record.h) from the start; journal_TASK.jsonl, a line per finished document in the
/// order they finish, handed to the system at once; samples_TASK.jsonl, the same lines in the order of
/// doc_id, written atomically when the task is finished, after which its journal goes; results.json last of
/// all, once every task is finished (its presence says so). Companion files (companion_file.h), where the run
/// has any, hold a further record per document; a record is there before its sample's line, and their
/// finished files before the samples file.
///
/// A folder that already holds work is opened by these rules:
/// - unfinished work: with resume it is continued; without, Error.
/// - finished results: with resume nothing is left to do; without, the run is done again from the start, and
///   the old files go first (the same run can make them again).
/// - either of them, of a run with another fingerprint: Error that names every key with both values.
/// - results.json or samples without run.json, so not of a run of ours: Error.
/// - a comparison, or a model (folder_use.h): Error.
///
/// So nothing is ever mixed, or overwritten by another run.
///
/// A run of several processes has a folder rank-K of the same layout for each but the first, below that of
/// the first. What killed ones left there is taken over when the run is resumed, by however many processes. A
/// shard's folder ends in shard.json instead of results.json.
///
/// Not thread-safe.
class RunDirectory {
 public:
  /// Creates the folder where missing and locks it; the rest as check_run_directory() has it.
  RunDirectory(std::filesystem::path directory, Fingerprint fingerprint,
               const std::vector<std::string>& tasks, bool resume,
               std::vector<CompanionFormat> companions = {});
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::filesystem::path& path() const { return directory_; }

  /// Whether the document was finished, in this process or by the run that is resumed.
  bool is_finished(std::string_view task, int64_t doc_id) const;
  int64_t finished_documents(std::string_view task) const;

  /// From here on append() is told of documents that these kernels ("avx2") have computed. Recorded with the
  /// first of them.
  void compute_with(std::string cpu_path) { cpu_path_ = std::move(cpu_path); }
  /// Those that the finished documents were computed by, as far as it was recorded.
  const std::set<std::string>& cpu_paths() const { return record_.cpu_paths; }

  /// Adds a finished document, with its record for each companion file: after this returns, a SIGKILL does
  /// not lose it. A document may be finished once.
  void append(std::string_view task, const Sample& sample, std::span<const std::string> records = {});

  /// Takes over the documents that `folder`, of the same run, has finished and this one has not, records
  /// included. `folder` is only read. Throws Error naming file and line for damage.
  void absorb(const std::filesystem::path& folder);
  /// absorb() for every rank-K below this folder, which is removed then. Throws Error where one is in use or
  /// of a run with other settings.
  void absorb_ranks();

  struct Finished {
    std::vector<Scores> scores;                           ///< ascending doc_id
    std::string samples_hash;                             ///< SHA-256 of the samples file
    std::map<std::string, std::string> companion_hashes;  ///< and of the companion files, by their names
  };
  /// Writes samples_TASK.jsonl from the documents finished so far and removes the journal; the same documents
  /// give the same bytes, whatever order and however many runs they took. Takes the task's scores out of
  /// memory.
  Finished finish(std::string_view task);

 private:
  struct Task;
  Task& task(std::string_view name) const;
  static void load(Task& task);
  void record_cpu_paths(const std::set<std::string>& cpu_paths);
  static void append(Task& task, Scores scores, std::string_view line, std::span<const std::string> records);

  std::filesystem::path directory_;
  RunRecord record_;
  std::string cpu_path_;
  DirectoryLock lock_;
  std::vector<CompanionFormat> companions_;
  std::map<std::string, std::unique_ptr<Task>, std::less<>> tasks_;
};

}  // namespace qeval::eval
