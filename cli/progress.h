#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace qeval::cli {

/// A line on standard error with bar, tokens per second and time left, redrawn a few times a second; silent
/// where standard error is no terminal.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(const std::string& label, int64_t tokens_done, int64_t tokens_total);
  /// Removes the line.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_, drawn_ = false;
  Clock::time_point started_, last_{};
};

/// "1:02:03" or "2:05".
std::string format_duration(double seconds);

}  // namespace qeval::cli
