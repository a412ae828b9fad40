#include "base/memory.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "base/error.h"

namespace qeval {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

std::optional<int64_t> number(std::string_view text) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end == text.data() || value < 0) return {};
  return value;
}

/// The number behind `key` in a file of lines such as "MemAvailable:   123 kB".
std::optional<int64_t> field(const std::string& file, std::string_view key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key)) continue;
    const size_t digit = line.find_first_of("0123456789", key.size());
    if (digit != std::string::npos) return number(std::string_view(line).substr(digit));
  }
  return {};
}

std::optional<int64_t> only_number(const std::string& file) {
  std::ifstream stream(file);
  std::string word;
  stream >> word;
  return number(word);  // "max" is none
}

/// What the control group (version 2) of this process leaves, over all that hold it. Pages of files that it
/// has read count as free: they are given back before anything is refused.
int64_t left_by_control_group() {
  std::ifstream groups("/proc/self/cgroup");
  int64_t least = kUnlimited;
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) continue;
    std::filesystem::path group = line.substr(4);
    while (true) {
      const std::string folder = (std::filesystem::path("/sys/fs/cgroup") / group).string();
      const auto most = only_number(folder + "/memory.max"), used = only_number(folder + "/memory.current");
      if (most && used) {
        const int64_t cached = field(folder + "/memory.stat", "inactive_file ").value_or(0) +
                               field(folder + "/memory.stat", "active_file ").value_or(0);
        least = std::min(least, std::max<int64_t>(0, *most - *used + cached));
      }
      if (group.empty() || group == group.parent_path()) break;
      group = group.parent_path();
    }
  }
  return least;
}

}  // namespace

MemoryLimit available_memory() {
  MemoryLimit least{kUnlimited, "the machine"};
  if (const auto kilobytes = field("/proc/meminfo", "MemAvailable:");
      kilobytes && *kilobytes < kUnlimited / 1024)
    least.bytes = *kilobytes * 1024;
  if (const int64_t left = left_by_control_group(); left < least.bytes)
    least = {left, "the container's memory.max"};
  return least;
}

void require_memory(int64_t bytes, std::string_view what) {
  const MemoryLimit limit = available_memory();
  if (bytes <= limit.bytes) return;
  const auto gigabytes = [](int64_t count) { return static_cast<double>(count) / 1e9; };
  fail(
      "{}: needs about {:.1f} GB of memory, {:.1f} GB are available ({}): end other programs, take a machine "
      "with more memory, or a smaller or more strongly quantized model",
      what, gigabytes(bytes), gigabytes(limit.bytes), limit.set_by);
}

}  // namespace qeval
