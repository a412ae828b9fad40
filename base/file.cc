#include "base/file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mapping_guard.h"

namespace qeval {
namespace {

/// Between a file's name and the number of the process that is writing it.
constexpr std::string_view kTemporaryMark = ".tmp";

std::string reason() {
  return std::strerror(errno);
}

/// Opens for reading, without waiting for somebody to write where the file is a pipe: it then reads as empty.
int open_to_read(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("{}: cannot open: {}", path.string(), reason());
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  return fd;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const int fd = open_to_read(path);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    const std::string why = S_ISDIR(info.st_mode) ? "is a directory" : "not a regular file";
    ::close(fd);
    fail("{}: cannot map: {}", path.string(), why);
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) {
      const int code = errno;
      const std::string why = reason();
      ::close(fd);
      fail("{}: cannot map {} bytes: {}{}", path.string(), size_, why,
           code == ENOMEM ? " (more address space than this process may take: see ulimit -v)" : "");
    }
    data_ = static_cast<const std::byte*>(address);
    register_mapping(data_, size_, path);
  }
  ::close(fd);
  if (is_lfs_pointer(text())) {
    const std::string content(text());
    unmap();
    refuse_lfs_pointer(content, path);
  }
}

MappedFile::~MappedFile() {
  unmap();
}

void MappedFile::unmap() {
  if (data_ == nullptr) return;
  unregister_mapping(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
  data_ = nullptr;
}

void MappedFile::release_pages() const {
  // Advice: where the system does not take it, the pages stay.
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::string read_file(const std::filesystem::path& path) {
  const int fd = open_to_read(path);
  std::string content;
  char buffer[1 << 16];
  ssize_t count = 0;
  while ((count = ::read(fd, buffer, sizeof buffer)) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const std::string why = reason();
      ::close(fd);
      fail("{}: cannot read: {}", path.string(), why);
    }
    content.append(buffer, static_cast<size_t>(count));
  }
  ::close(fd);
  refuse_lfs_pointer(content, path);
  return content;
}

bool is_lfs_pointer(std::string_view content) {
  constexpr size_t kMostBytes = 1024;  // the pointer's specification allows no more
  return content.size() < kMostBytes &&
         (content.starts_with("version https://git-lfs.github.com/spec/") ||
          content.starts_with(
              "version https://hawser.github.com/spec/"));  // Git LFS before its first release
}

void refuse_lfs_pointer(std::string_view content, const std::filesystem::path& path) {
  if (!is_lfs_pointer(content)) return;
  fail("{}: a Git LFS pointer stands in place of the file; run `git lfs pull` in its repository to fetch it",
       path.string());
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code code;
  const auto status = std::filesystem::symlink_status(path_, code);
  if (std::filesystem::is_symlink(status)) {  // what it points to is replaced, not the link
    const auto target = std::filesystem::canonical(path_, code);
    if (code) fail("{}: a link that leads nowhere; accepted: a file", path_.string());
    path_ = target;
  }
  const auto found = std::filesystem::status(path_, code);
  if (std::filesystem::exists(found) && !std::filesystem::is_regular_file(found) &&
      !std::filesystem::is_directory(found)) {  // renaming onto a folder fails by itself
    fail("{}: a device or pipe, which cannot be replaced as a whole; accepted: a file", path_.string());
  }
  temporary_ = path_;
  temporary_ += fmt::format("{}{}", kTemporaryMark, ::getpid());
  file_ = std::fopen(temporary_.c_str(), "wbe");
  if (file_ == nullptr) fail("{}: cannot write: {}", temporary_.string(), reason());
}

std::optional<std::string_view> file_of_temporary(std::string_view name) {
  const size_t end = name.rfind(kTemporaryMark);
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view process = name.substr(end + kTemporaryMark.size());
  if (process.empty() || process.find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  return name.substr(0, end);
}

AtomicFile::~AtomicFile() {
  if (file_ != nullptr) {
    std::fclose(file_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;  // fwrite takes no null pointer, not even for nothing
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) {
    fail("{}: cannot write: {}", temporary_.string(), reason());
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit() {
  const bool flushed = std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  const std::string why = flushed ? "" : reason();
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  if (!flushed || !closed) {
    const std::string cause = flushed ? reason() : why;
    ::unlink(temporary_.c_str());
    fail("{}: cannot write: {}", temporary_.string(), cause);
  }
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const std::string cause = reason();
    ::unlink(temporary_.c_str());
    fail("{}: cannot replace: {}", path_.string(), cause);
  }
}

void create_directories(const std::filesystem::path& path) {
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (code) fail("{}: cannot create the folder: {}", path.string(), code.message());
  if (!std::filesystem::is_directory(path)) fail("{}: is not a folder", path.string());
}

}  // namespace qeval
