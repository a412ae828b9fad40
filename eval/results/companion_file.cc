#include "eval/results/companion_file.h"

#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>

#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

namespace qeval::eval {

namespace fs = std::filesystem;

AppendFile::~AppendFile() {
  close();
}

void AppendFile::open(const fs::path& path, uint64_t size) {
  assert(!is_open());
  path_ = path;
  file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file_ < 0) fail("{}: cannot write: {}", path.string(), std::strerror(errno));
  if (::lseek(file_, 0, SEEK_END) != static_cast<off_t>(size)) {
    close();
    fail("{}: was changed by something else while the run had it", path.string());
  }
  size_ = size;
}

void AppendFile::append(std::string_view bytes) {
  for (size_t written = 0; written < bytes.size();) {
    const ssize_t count = ::write(file_, bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const std::string reason = std::strerror(errno);
      // What was finished before stays usable even if this fails too: loading drops an incomplete end.
      if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) close();
      fail("{}: cannot write: {}", path_.string(), reason);
    }
    written += static_cast<size_t>(count);
  }
  size_ += bytes.size();
}

void AppendFile::close() {
  if (file_ >= 0) ::close(std::exchange(file_, -1));
}

CompanionFile::CompanionFile(const fs::path& directory, const CompanionFormat& format, std::string_view task)
    : format_(format),
      finished_(directory / file_of_task(format.prefix, task, format.extension)),
      unfinished_(directory / file_of_task("unfinished_" + format.prefix, task, format.extension)),
      header_(format.header(task)) {}

uint64_t CompanionFile::read(const fs::path& path, bool unfinished) {
  if (!fs::exists(path)) return 0;
  const MappedFile file(path);
  const std::string_view text = file.text();
  if (!text.starts_with(header_)) {
    // Killed while it wrote the header: no document was finished after that.
    if (unfinished && header_.starts_with(text)) return 0;
    fail("{}: does not begin as this run's would: it is damaged or of another run", path.string());
  }
  uint64_t offset = header_.size();
  const uint64_t length =
      format_.scan(text.substr(header_.size()), path.string(), [&](int64_t doc_id, uint64_t size) {
        records_.insert_or_assign(doc_id, Place{unfinished, offset, size});
        offset += size;
      });
  return header_.size() + length;
}

void CompanionFile::load(bool only_look) {
  const uint64_t finished_size = read(finished_, false);
  if (fs::exists(finished_) && fs::file_size(finished_) != finished_size)
    fail("{}: the last record is incomplete", finished_.string());
  unfinished_size_ = read(unfinished_, true);
  if (!only_look && fs::exists(unfinished_) && fs::file_size(unfinished_) > unfinished_size_) {
    std::error_code code;
    fs::resize_file(unfinished_, unfinished_size_, code);
    if (code) fail("{}: cannot drop the incomplete last record: {}", unfinished_.string(), code.message());
  }
}

void CompanionFile::append(int64_t doc_id, std::string_view record) {
  if (!file_.is_open()) {
    file_.open(unfinished_, unfinished_size_);
    if (file_.size() == 0) file_.append(header_);
  }
  const uint64_t offset = file_.size();
  file_.append(record);
  records_.insert_or_assign(doc_id, Place{true, offset, record.size()});
}

std::string CompanionFile::record(int64_t doc_id) const {
  const auto found = records_.find(doc_id);
  if (found == records_.end()) {
    fail("{}: document {} has a sample but no record here: the folder is damaged", finished_.string(),
         doc_id);
  }
  const MappedFile file(found->second.unfinished ? unfinished_ : finished_);
  return std::string(file.text().substr(found->second.offset, found->second.length));
}

std::string CompanionFile::finish(const std::vector<int64_t>& documents) {
  const std::optional<MappedFile> finished =
      fs::exists(finished_) ? std::optional<MappedFile>(finished_) : std::nullopt;
  const std::optional<MappedFile> unfinished =
      fs::exists(unfinished_) ? std::optional<MappedFile>(unfinished_) : std::nullopt;
  AtomicFile file(finished_);
  Sha256 hash;
  const auto write = [&](std::string_view bytes) {
    file.write(bytes);
    hash.update(bytes);
  };
  write(header_);
  for (const int64_t doc_id : documents) {
    const auto found = records_.find(doc_id);
    if (found == records_.end()) {
      fail("{}: document {} has a sample but no record here: the folder is damaged", finished_.string(),
           doc_id);
    }
    const Place& place = found->second;
    write((place.unfinished ? unfinished : finished).value().text().substr(place.offset, place.length));
  }
  file.commit();
  return hash.hex();
}

void CompanionFile::remove_unfinished() {
  file_.close();
  std::error_code code;
  fs::remove(unfinished_, code);
  if (code) fail("{}: cannot remove: {}", unfinished_.string(), code.message());
}

}  // namespace qeval::eval
