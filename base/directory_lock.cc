#include "base/directory_lock.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"

namespace qeval {
namespace {

constexpr const char* lock_file = ".lock";

std::string owner() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  std::array<char, 64> since{};
  if (::localtime_r(&now, &local) == nullptr ||
      std::strftime(since.data(), since.size(), "%Y-%m-%d %H:%M:%S %Z", &local) == 0)
    since = {'?'};
  return fmt::format("process {} on {} since {}", ::getpid(), host, since.data());
}

/// Whether `file` is still what `path` names: the holder before us may have removed it between our open and
/// lock.
bool is_current(int file, const std::filesystem::path& path) {
  struct stat opened {
  }, named{};
  return ::fstat(file, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

}  // namespace

DirectoryLock::DirectoryLock(const std::filesystem::path& directory) : path_(directory / lock_file) {
  while (true) {
    const int file = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) fail("{}: cannot write into the directory: {}", directory.string(), std::strerror(errno));
    if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      ::close(file);
      if (reason == EINTR) continue;
      if (reason != EWOULDBLOCK) fail("{}: cannot lock: {}", path_.string(), std::strerror(reason));
      fail("{}: in use by {}: wait for it to end or choose another directory", directory.string(),
           printable(read_file(path_)));
    }
    if (is_current(file, path_)) {
      file_ = file;
      break;
    }
    ::close(file);
  }
  const std::string text = owner();
  if (::ftruncate(file_, 0) != 0 ||
      ::pwrite(file_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    const std::string reason = std::strerror(errno);
    ::close(file_);
    fail("{}: cannot write: {}", path_.string(), reason);
  }
}

DirectoryLock::~DirectoryLock() {
  ::unlink(path_.c_str());  // while the lock is held, so that nobody else's is removed
  ::close(file_);
}

bool is_unused(const std::filesystem::path& directory) {
  std::error_code code;
  std::filesystem::directory_iterator entries(directory, code);
  for (; !code && entries != std::filesystem::directory_iterator(); entries.increment(code)) {
    const std::string name = entries->path().filename().string();
    if (name != lock_file && !file_of_temporary(name)) return false;
  }
  return !code;
}

}  // namespace qeval
