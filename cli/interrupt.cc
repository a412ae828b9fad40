#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace qeval::cli {
namespace {

/// The kernel may call the handler in any thread.
std::atomic<bool> signalled{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // what a handler may use

void on_signal(int) {
  signalled = true;
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool interrupted() {
  return signalled;
}

}  // namespace qeval::cli
