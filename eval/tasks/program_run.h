#pragma once

#include <chrono>
#include <string>

namespace qeval::eval {

/// Bounds of a program that strangers wrote.
struct ProgramLimits {
  std::chrono::milliseconds time{3000};  ///< by the clock, and as much of the processor
  int64_t memory_bytes = int64_t{2} << 30;
  int64_t file_bytes = int64_t{16} << 20;
  int64_t processes = 64;
};

/// Whether a Python program runs to its end without an exception. It runs in a process of its own, in
/// namespaces of its own: without network, without sight of other processes, with every file system read-only
/// but an empty folder in memory, which is where it runs; no environment, no input, its output thrown away.
///
/// Throws Error saying what is missing where the system allows no such isolation (user, network, process,
/// mount and message namespaces), or where there is no python3.
bool program_passes(const std::string& program, const ProgramLimits& limits = {});

}  // namespace qeval::eval
