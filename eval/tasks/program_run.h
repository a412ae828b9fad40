#pragma once

#include <chrono>
#include <string>

namespace qeval::eval {

/// Bounds of a program that strangers wrote.
struct ProgramLimits {
  std::chrono::milliseconds time{
      3000};  ///< by the clock, the interpreter's start included; and of the processor
  int64_t memory_bytes = int64_t{2} << 30;  ///< of each process
  int64_t file_bytes = int64_t{16} << 20;
  int64_t processes = 64;  ///< Linux does not count those of the system's root
};

/// Whether a Python program runs to its end without an exception. It runs without capabilities in namespaces
/// of its own: no network, no sight of other processes, no Unix sockets but pairs; every file system
/// read-only and the folders of users, sockets and devices empty, but for a folder in memory, which is where
/// it runs; no environment, no input, its output thrown away. Nothing that it started is left when this
/// returns.
///
/// The program shares its interpreter with the few lines that say that it came to its end. No exit code says
/// so, but a program that searches the interpreter's memory for the word that does can still claim to have
/// passed.
///
/// Throws Error saying what is missing where the system allows no such isolation (user, network, process,
/// mount and message namespaces), or where there is no python3.
bool program_passes(const std::string& program, const ProgramLimits& limits = {});

}  // namespace qeval::eval
