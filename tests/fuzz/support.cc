#include "tests/fuzz/support.h"

#include <cstdio>
#include <cstdlib>

#include <fcntl.h>
#include <unistd.h>

#include "base/unicode.h"

namespace qeval::fuzz {

Parts split(std::string_view text) {
  constexpr std::string_view kLine = "\n%%%\n";
  const size_t at = text.find(kLine);
  if (at == std::string_view::npos) return {text, {}};
  return {text.substr(0, at), text.substr(at + kLine.size())};
}

void defect(std::string_view what, std::string_view detail) {
  fmt::print(stderr, "defect: {}: {}\n", what, printable(detail, 2000));
  std::abort();
}

void check_message(std::string_view message) {
  static const bool shown = std::getenv("QEVAL_FUZZ_SHOW") != nullptr;
  if (shown) fmt::print(stderr, "refused: {}\n", printable(message, 300));
  if (find_invalid_utf8(message) != std::string_view::npos) defect("a message that is not UTF-8", message);
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) defect("a message with control characters", message);
  }
}

Scratch::Scratch() {
  std::error_code code;
  const bool memory = std::filesystem::is_directory("/dev/shm", code) && ::access("/dev/shm", W_OK) == 0;
  const std::filesystem::path parent = memory ? "/dev/shm" : std::filesystem::temp_directory_path();
  std::string name = (parent / "qeval-fuzz-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) defect("cannot make a folder", name);
  path_ = name;
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path Scratch::write(std::string_view name, std::string_view bytes) const {
  std::filesystem::path file = path_ / name;
  int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) {
    std::error_code ignored;
    std::filesystem::create_directories(file.parent_path(), ignored);
    fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  }
  const bool written =
      fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  if (fd >= 0) ::close(fd);
  if (!written) defect("cannot write a scratch file", file.string());
  return file;
}

void Scratch::remove(std::string_view name) const {
  std::error_code ignored;
  std::filesystem::remove(path_ / name, ignored);
}

const Scratch& scratch() {
  static const Scratch folder;
  return folder;
}

}  // namespace qeval::fuzz
