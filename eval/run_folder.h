#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/peers.h"
#include "eval/encoded_tasks.h"
#include "eval/results/companion_file.h"
#include "eval/results/run_directory.h"
#include "eval/results/run_record.h"

namespace qeval::eval {

/// Documents by their doc_ids, per task.
using DocumentSets = std::vector<std::set<int64_t>>;

/// The output folder of a run as its processes share it: the first rank's own, and rank-K below it for every
/// other until the end. A run without an output folder has none of it.
class RunFolder {
 public:
  RunFolder(std::optional<std::filesystem::path> output, bool resume, Peers peers)
      : output_(std::move(output)), resume_(resume), peers_(std::move(peers)) {}

  /// Throws Error where open() could not open the folder. Only looks, and makes nothing.
  void check(const Fingerprint& fingerprint, const std::vector<std::string>& tasks) const;
  /// Creates and locks it, on all ranks together. A rank that sees another folder, or has other settings than
  /// the first, is an Error.
  void open(const Fingerprint& fingerprint, const std::vector<std::string>& tasks,
            const std::vector<CompanionFormat>& companions);

  /// Null before open(), after close() and without an output folder.
  RunDirectory* directory() { return directory_.get(); }
  /// Closes its files.
  void close() { directory_.reset(); }

  /// Those of `documents` that no earlier run has finished: as the first rank sees it, on all of them.
  DocumentSets unfinished(const EncodedTasks& tasks, DocumentSets documents) const;

 private:
  std::optional<std::filesystem::path> output_;
  bool resume_;
  Peers peers_;
  std::unique_ptr<RunDirectory> directory_;
};

}  // namespace qeval::eval
