// Preloaded into a program: its wall clock jumps a day back and forth with every look. Clocks that only
// measure durations stay right.

#include <atomic>
#include <ctime>

#include <sys/syscall.h>
#include <unistd.h>

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const auto status = static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
  static std::atomic<int> looks{0};
  constexpr time_t kDay = 86400;
  if (status == 0 && clock == CLOCK_REALTIME) time->tv_sec += looks++ % 2 == 0 ? kDay : -kDay;
  return status;
}
