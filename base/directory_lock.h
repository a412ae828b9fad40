#pragma once

#include <filesystem>

namespace qeval {

/// Exclusive use of a folder by this process: an flock on FOLDER/.lock, which holds the owner's process, host
/// and when it began, for the message of whoever comes second. The system lets go of it when the process
/// dies.
class DirectoryLock {
 public:
  /// Throws Error naming the holder, or saying why the folder cannot be written into.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

/// Whether a path is a folder that holds nothing, or nothing but a lock and what a killed process was about
/// to write (file_of_temporary).
bool is_unused(const std::filesystem::path& directory);

}  // namespace qeval
