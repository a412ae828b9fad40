// What libFuzzer's main() calls, for the target that QEVAL_FUZZ_TARGET names.
#include <csignal>
#include <cstdlib>

#include <sys/time.h>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, size_t size);

// libFuzzer's own -timeout counts wall time, in which a busy machine may do nothing: an input that takes this
// much of the process's time ends it by SIGABRT, which is reported as a crash.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, size_t size) {
  constexpr itimerval kMost{.it_interval = {0, 0}, .it_value = {.tv_sec = 20, .tv_usec = 0}};
  constexpr itimerval kNone{};
  static const auto installed = std::signal(SIGVTALRM, [](int) { std::abort(); });
  (void)installed;
  ::setitimer(ITIMER_VIRTUAL, &kMost, nullptr);
  qeval::fuzz::QEVAL_FUZZ_TARGET({reinterpret_cast<const std::byte*>(data), size});
  ::setitimer(ITIMER_VIRTUAL, &kNone, nullptr);
  return 0;
}
