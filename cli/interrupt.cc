#include "cli/interrupt.h"

#include <csignal>

namespace qeval::cli {
namespace {

volatile std::sig_atomic_t signalled = 0;

void on_signal(int) {
  signalled = 1;
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool interrupted() {
  return signalled != 0;
}

}  // namespace qeval::cli
