#include "cli/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

namespace qeval::cli {

std::string format_duration(double seconds) {
  const int64_t whole = std::llround(std::max(0.0, seconds));
  const int64_t hours = whole / 3600;
  const int64_t minutes = whole / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

Progress::Progress() : terminal_(isatty(STDERR_FILENO) == 1), started_(Clock::now()) {}

Progress::~Progress() {
  clear();
}

void Progress::update(const std::string& label, int64_t tokens_done, int64_t tokens_total) {
  const Clock::time_point now = Clock::now();
  if (!terminal_ || tokens_total == 0 || now - last_ < std::chrono::milliseconds(200)) return;
  last_ = now;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const double done = static_cast<double>(tokens_done) / static_cast<double>(tokens_total);
  const double rate = static_cast<double>(tokens_done) / std::max(seconds, 1e-3);
  constexpr int kWidth = 24;
  std::string bar;
  for (int i = 0; i < kWidth; ++i) bar += i < static_cast<int>(done * kWidth) ? "█" : "░";
  const std::string left =
      tokens_done > 0 ? format_duration(static_cast<double>(tokens_total - tokens_done) / rate) : "?";
  std::fputs(fmt::format("\r\x1b[K{:<20.20} {} {:3.0f} %  {:.0f} tokens/s  {} left", label, bar, 100 * done,
                         rate, left)
                 .c_str(),
             stderr);
  std::fflush(stderr);
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace qeval::cli
