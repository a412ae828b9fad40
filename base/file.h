#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace qeval {

/// A file mapped read-only. The bytes stay valid for the life of the object; moving keeps their address.
class MappedFile {
 public:
  /// Throws Error naming the path and the system's reason, or that it is a Git LFS pointer. An empty file
  /// maps to an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

  /// Gives back the memory of the pages read so far. The bytes stay valid: they come from the file again.
  void release_pages() const;

 private:
  void unmap();

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole file as a string; throws Error naming the path where it cannot be read or is a Git LFS pointer.
std::string read_file(const std::filesystem::path& path);

/// Whether `content` is what Git LFS leaves in place of a large file that was not downloaded.
bool is_lfs_pointer(std::string_view content);

/// Throws Error saying so, and what to do, where `content` of the file `path` is a Git LFS pointer.
/// MappedFile and read_file do this with every file.
void refuse_lfs_pointer(std::string_view content, const std::filesystem::path& path);

/// Replaces `path` by `content` so that a reader, a crash or a full disk never sees half of it: written to a
/// temporary name in the same folder, flushed to the disk, renamed. Throws Error naming the path and the
/// reason.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// Writes a file of unknown length the same way: bytes go to a temporary name, commit() renames. Destroyed
/// without commit(), it removes the temporary file.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  std::FILE* file_ = nullptr;
};

/// The file that a temporary name of AtomicFile is of, which a killed process leaves; none for other names.
std::optional<std::string_view> file_of_temporary(std::string_view name);

/// Creates the folder and its parents where missing; throws Error naming the path.
void create_directories(const std::filesystem::path& path);

}  // namespace qeval
