#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include "eval/results/sample_file.h"

namespace qeval::eval {

/// A file that is only ever appended to; every append reaches the system before it returns.
class AppendFile {
 public:
  AppendFile() = default;
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// Opens or creates; Error where the file is not `size` bytes long.
  void open(const std::filesystem::path& path, uint64_t size);
  bool is_open() const { return file_ >= 0; }
  uint64_t size() const { return size_; }
  /// All of it or nothing that a reader would take for finished; throws Error naming the file.
  void append(std::string_view bytes);
  void close();

 private:
  std::filesystem::path path_;
  int file_ = -1;
  uint64_t size_ = 0;
};

/// The layout of a file per task that holds a record of each document beside its sample: a header, then
/// records that follow one another.
struct CompanionFormat {
  std::string prefix, extension;  ///< PREFIX_TASK.EXTENSION, the latter with its dot
  std::function<std::string(std::string_view task)> header;  ///< the bytes a file begins with
  /// Calls visit(doc_id, length) for the records of `bytes` in order, all of them behind the header; stops at
  /// an incomplete one at the end and returns the length without it. Throws Error opening with `where` for a
  /// damaged record.
  std::function<uint64_t(std::string_view bytes, const std::string& where,
                         const std::function<void(int64_t doc_id, uint64_t length)>& visit)>
      scan;
  /// The tasks that have such a file; nothing: all of the run's.
  std::optional<std::set<std::string>> tasks = {};

  bool is_of(const std::string& task) const { return !tasks || tasks->contains(task); }
};

/// A task's records while the run is under way (unfinished_PREFIX_TASK.EXTENSION, in the order they finish)
/// and when it is finished (PREFIX_TASK.EXTENSION, in the order of doc_id).
class CompanionFile {
 public:
  CompanionFile(const std::filesystem::path& directory, const CompanionFormat& format, std::string_view task);

  /// Reads what earlier runs left and drops an incomplete record at its end: from the file too, unless
  /// another run's file is only looked at.
  void load(bool only_look = false);
  bool has(int64_t doc_id) const { return records_.contains(doc_id); }
  void append(int64_t doc_id, std::string_view record);
  /// The record of a document; throws Error where there is none.
  std::string record(int64_t doc_id) const;
  /// Writes the finished file with the records of `documents`, each of which must be there (Error), and
  /// returns its SHA-256.
  std::string finish(const std::vector<int64_t>& documents);
  /// The finished file's name, without a folder.
  std::string name() const { return finished_.filename().string(); }
  /// After the samples are finished too: what was under way goes.
  void remove_unfinished();

 private:
  struct Place {
    bool unfinished;
    uint64_t offset, length;
  };
  uint64_t read(const std::filesystem::path& path, bool unfinished);

  const CompanionFormat& format_;
  std::filesystem::path finished_, unfinished_;
  std::string header_;
  AppendFile file_;
  uint64_t unfinished_size_ = 0;
  std::unordered_map<int64_t, Place> records_;
};

}  // namespace qeval::eval
