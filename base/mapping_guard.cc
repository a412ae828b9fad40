#include "base/mapping_guard.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <string>

#include <unistd.h>

#include "base/error.h"

namespace qeval {
namespace {

/// A signal handler may take no lock and no memory, so the mappings stand in a table of fixed size. A slot is
/// taken by whoever exchanges its address from zero, and valid while its size is not zero.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<size_t> size{0};
  std::array<char, 400> name{};
};

std::array<Slot, 512>& slots() {
  static std::array<Slot, 512> table;
  return table;
}

void say(const char* text) {
  for (size_t left = std::strlen(text); left > 0;) {
    const ssize_t count = ::write(STDERR_FILENO, text, left);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text += count;
    left -= static_cast<size_t>(count);
  }
}

/// Asked for beforehand: AArch64 has pages of 4, 16 and 64 KiB.
size_t page_size() {
  static const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

/// Only calls that are safe in a signal handler.
void on_lost_mapping(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Slot& slot : slots()) {
    const size_t size = slot.size.load(std::memory_order_acquire);
    const uintptr_t begin = slot.begin.load(std::memory_order_relaxed);
    // The last page of a file is mapped whole.
    const size_t page = page_size();
    if (size == 0 || address < begin || address - begin >= (size + page - 1) / page * page) continue;
    static std::atomic_flag said;
    if (said.test_and_set()) _exit(1);  // another thread is at it
    say("qeval: ");
    say(slot.name.data());
    say(": was shortened while it was read, or its disk failed: put the file back and run the command again; "
        "finished documents are kept\n");
    _exit(1);
  }
  std::signal(signal, SIG_DFL);  // not ours: it is raised again, as if there had been no handler
}

}  // namespace

void report_lost_mappings() {
  slots();  // made before the handler could want them
  page_size();
  struct sigaction action {};
  action.sa_sigaction = on_lost_mapping;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  if (::sigaction(SIGBUS, &action, nullptr) != 0) fail("cannot handle SIGBUS: {}", std::strerror(errno));
}

void register_mapping(const void* begin, size_t size, const std::filesystem::path& path) {
  const std::string name = printable(path.string(), 300);
  for (Slot& slot : slots()) {
    uintptr_t free = 0;
    if (!slot.begin.compare_exchange_strong(free, reinterpret_cast<uintptr_t>(begin))) continue;
    const size_t length = std::min(name.size(), slot.name.size() - 1);
    std::memcpy(slot.name.data(), name.data(), length);
    slot.name[length] = '\0';
    slot.size.store(size, std::memory_order_release);
    return;
  }
}

void unregister_mapping(const void* begin) {
  for (Slot& slot : slots()) {
    if (slot.begin.load(std::memory_order_relaxed) != reinterpret_cast<uintptr_t>(begin)) continue;
    slot.size.store(0, std::memory_order_release);
    slot.begin.store(0, std::memory_order_release);
    return;
  }
}

}  // namespace qeval
