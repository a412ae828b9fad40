#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace qeval {

/// Memory that this process may still take.
struct MemoryLimit {
  int64_t bytes = 0;
  std::string_view set_by;  ///< what sets it: "the machine", "the container's memory.max"
};

/// Where the system says it; tests hand in a folder of their own.
struct MemorySources {
  std::filesystem::path machine = "/proc/meminfo";
  std::filesystem::path own_groups = "/proc/self/cgroup";  ///< a line per hierarchy of control groups
  std::filesystem::path groups = "/sys/fs/cgroup";         ///< version 2, or version 1's memory/
};

/// The least of what the machine has available (what the system would free of its caches included) and what
/// the control groups of version 1 and 2 that hold this process leave. Where none of them can be read: as
/// much as an int64_t holds.
MemoryLimit available_memory(const MemorySources& sources = {});

/// The most memory that this process has had resident, mapped files included.
int64_t peak_memory();

/// What it has now besides mapped files; 0 where the system does not say.
int64_t own_memory();

/// Throws Error where `bytes` more are not available: "WHAT: needs about 12.3 GB of memory, 4.5 GB are
/// available (the machine): end other programs, take a machine with more memory, or REMEDY". `what` names the
/// file or folder, or what is kept in memory.
void require_memory(int64_t bytes, std::string_view what,
                    std::string_view remedy = "a smaller or more strongly quantized model");

}  // namespace qeval
