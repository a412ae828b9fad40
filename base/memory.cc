#include "base/memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include <sys/resource.h>
#if defined(__APPLE__)
#include <mach/mach.h>
#endif

#include "base/error.h"

namespace qeval {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

std::optional<int64_t> number_in(std::string_view text) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end == text.data() || value < 0) return {};
  return value;
}

/// The number behind `key` in a file of lines such as "MemAvailable:   123 kB".
std::optional<int64_t> field(const fs::path& file, std::string_view key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key)) continue;
    const size_t digit = line.find_first_of("0123456789", key.size());
    if (digit != std::string::npos) return number_in(std::string_view(line).substr(digit));
  }
  return {};
}

std::optional<int64_t> only_number(const fs::path& file) {
  std::ifstream stream(file);
  std::string word;
  stream >> word;
  return number_in(word);  // "max" is none
}

/// The files of a version of control groups.
struct GroupFiles {
  const char* folder;  ///< below MemorySources::groups
  const char *most, *used;
  const char *inactive, *active;  ///< of memory.stat: pages of files, those of the groups within included
  std::string_view set_by;
};
constexpr GroupFiles kVersion1{"memory",
                               "memory.limit_in_bytes",
                               "memory.usage_in_bytes",
                               "total_inactive_file ",
                               "total_active_file ",
                               "the container's memory.limit_in_bytes"};
constexpr GroupFiles kVersion2{
    "", "memory.max", "memory.current", "inactive_file ", "active_file ", "the container's memory.max"};

/// What `group` leaves, and those that hold it. Pages of files that a group has read count as free: they are
/// given back before anything is refused. In a container the path may be the host's, of which only the root
/// is to be seen: that is the container's own group.
MemoryLimit left_by(const fs::path& root, fs::path group, const GroupFiles& files) {
  MemoryLimit least{kUnlimited, files.set_by};
  while (true) {
    const fs::path folder = root / files.folder / group;
    const auto most = only_number(folder / files.most), used = only_number(folder / files.used);
    if (most && used) {
      const int64_t cached = field(folder / "memory.stat", files.inactive).value_or(0) +
                             field(folder / "memory.stat", files.active).value_or(0);
      // The two are counted apart, so that more may be cached than used for a moment.
      const int64_t kept = std::max<int64_t>(0, *used - cached);
      least.bytes = std::min(least.bytes, std::max<int64_t>(0, *most - kept));
    }
    if (group.empty() || group == group.parent_path()) return least;
    group = group.parent_path();
  }
}

/// Whether "cpu,memory" names it.
bool names_memory(std::string_view controllers) {
  while (true) {
    const size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == "memory") return true;
    if (comma == std::string_view::npos) return false;
    controllers.remove_prefix(comma + 1);
  }
}

/// Over the lines "HIERARCHY:CONTROLLERS:/PATH"; version 2 has "0::/PATH".
MemoryLimit left_by_control_groups(const MemorySources& sources) {
  MemoryLimit least{kUnlimited, ""};
  std::ifstream lines(sources.own_groups);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(":/", first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    const bool is_version_2 = controllers.empty();
    if (!is_version_2 && !names_memory(controllers)) continue;
    const MemoryLimit left =
        left_by(sources.groups, line.substr(second + 2), is_version_2 ? kVersion2 : kVersion1);
    if (left.bytes < least.bytes) least = left;
  }
  return least;
}

#if defined(__APPLE__)

/// What the machine would give without writing to its disk.
std::optional<int64_t> left_by_machine(const MemorySources&) {
  vm_statistics64 pages{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  vm_size_t page = 0;
  if (::host_page_size(::mach_host_self(), &page) != KERN_SUCCESS ||
      ::host_statistics64(::mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages),
                          &count) != KERN_SUCCESS)
    return {};
  return (int64_t{pages.free_count} + pages.inactive_count + pages.purgeable_count) *
         static_cast<int64_t>(page);
}

#else

std::optional<int64_t> left_by_machine(const MemorySources& sources) {
  const auto kilobytes = field(sources.machine, "MemAvailable:");
  if (!kilobytes || *kilobytes >= kUnlimited / 1024) return {};
  return *kilobytes * 1024;
}

#endif

}  // namespace

MemoryLimit available_memory(const MemorySources& sources) {
  MemoryLimit least{kUnlimited, "the machine"};
  if (const auto bytes = left_by_machine(sources)) least.bytes = *bytes;
  if (const MemoryLimit left = left_by_control_groups(sources); left.bytes < least.bytes) least = left;
  return least;
}

int64_t peak_memory() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return usage.ru_maxrss;
#else
  return int64_t{usage.ru_maxrss} * 1024;
#endif
}

int64_t own_memory() {
#if defined(__APPLE__)
  task_vm_info_data_t info{};
  mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
  if (::task_info(::mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &count) !=
      KERN_SUCCESS)
    return 0;
  return static_cast<int64_t>(info.phys_footprint);
#else
  return field("/proc/self/status", "RssAnon:").value_or(0) * 1024;
#endif
}

void require_memory(int64_t bytes, std::string_view what, std::string_view remedy) {
  const MemoryLimit limit = available_memory();
  if (bytes <= limit.bytes) return;
  const auto gigabytes = [](int64_t count) { return static_cast<double>(count) / 1e9; };
  fail(
      "{}: needs about {:.1f} GB of memory, {:.1f} GB are available ({}): end other programs, take a machine "
      "with more memory, or {}",
      what, gigabytes(bytes), gigabytes(limit.bytes), limit.set_by, remedy);
}

}  // namespace qeval
