#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "eval/results/run_directory.h"

namespace qeval::eval {
namespace {

std::string owner() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  return fmt::format("process {} on {}", ::getpid(), host);
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

DirectoryLock::DirectoryLock(const std::filesystem::path& directory) : path_(directory / ".lock") {
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

}  // namespace qeval::eval
