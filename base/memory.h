#pragma once

#include <cstdint>
#include <string_view>

namespace qeval {

/// Memory that this process may still take.
struct MemoryLimit {
  int64_t bytes = 0;
  std::string_view set_by;  ///< what sets it: "the machine", "the container's memory.max"
};

/// The lesser of what the machine has available (what the system would free of its caches included) and what
/// the process's control group leaves. Where none of them can be read: as much as an int64_t holds.
MemoryLimit available_memory();

/// Throws Error where `bytes` more are not available: "WHAT: needs about 12.3 GB of memory, 4.5 GB are
/// available (the machine): …". `what` names the file or folder.
void require_memory(int64_t bytes, std::string_view what);

}  // namespace qeval
