#include "eval/tasks/program_run.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

namespace qeval::eval {
namespace {

/// How the processes below say what became of the program.
constexpr int kPassed = 120, kFailed = 1, kNotIsolated = 121, kNoPython = 122;

/// exec() as the harness's scorer has it, in an empty namespace; leaving by itself is no success.
constexpr const char* kRunner =
    "import os, sys\n"
    "source = sys.stdin.buffer.read().decode('utf-8', 'surrogatepass')\n"
    "leave = os._exit\n"
    "try:\n"
    "    exec(source, {})\n"
    "except BaseException:\n"
    "    leave(1)\n"
    "leave(120)\n";

bool write_text(const char* path, const char* text, size_t length) {
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool written = write(file, text, length) == static_cast<ssize_t>(length);
  close(file);
  return written;
}

void limit(int resource, rlim_t value) {
  const rlimit both{value, value};
  setrlimit(static_cast<__rlimit_resource_t>(resource), &both);
}

/// Only calls that are safe in the child of a process with threads.
struct Identity {
  std::array<char, 64> users{}, groups{};
};
Identity own_identity() {
  Identity out;
  fmt::format_to_n(out.users.data(), out.users.size() - 1, "0 {} 1", getuid());
  fmt::format_to_n(out.groups.data(), out.groups.size() - 1, "0 {} 1", getgid());
  return out;
}

/// Leaves for namespaces of its own; false where one is not to be had.
bool isolate(const Identity& identity) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
    return false;
  write_text("/proc/self/setgroups", "deny",
             4);  // needed before a group is mapped, where there is such a file
  return write_text("/proc/self/uid_map", identity.users.data(), std::strlen(identity.users.data())) &&
         write_text("/proc/self/gid_map", identity.groups.data(), std::strlen(identity.groups.data()));
}

/// Every file system becomes read-only, and /tmp a new one in memory, which becomes the current folder.
bool shut_files() {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  mount_attr read_only{};
  read_only.attr_set = MOUNT_ATTR_RDONLY;
  if (syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &read_only, sizeof read_only) != 0)
    return false;
  if (mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=32m") != 0) return false;
  return chdir("/tmp") == 0;
}

[[noreturn]] void become_python(int input, const ProgramLimits& limits) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (!shut_files()) _exit(kNotIsolated);
  const auto seconds = static_cast<rlim_t>((limits.time.count() + 999) / 1000);
  limit(RLIMIT_CPU, seconds);
  limit(RLIMIT_AS, static_cast<rlim_t>(limits.memory_bytes));
  limit(RLIMIT_FSIZE, static_cast<rlim_t>(limits.file_bytes));
  limit(RLIMIT_NPROC, static_cast<rlim_t>(limits.processes));
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NOFILE, 64);
  const int nowhere = open("/dev/null", O_WRONLY);
  if (nowhere < 0 || dup2(input, 0) < 0 || dup2(nowhere, 1) < 0 || dup2(nowhere, 2) < 0) _exit(kNotIsolated);
  close_range(3, ~0U, 0);
  const char* const arguments[] = {"python3", "-I", "-S", "-c", kRunner, nullptr};
  const char* const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", nullptr};
  for (const char* path : {"/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3"})
    execve(path, const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
  _exit(kNoPython);
}

/// The child: isolates itself, and waits for the program, which is the first process of its namespace, so
/// that all that it starts ends with it.
[[noreturn]] void be_child(int input, const Identity& identity, const ProgramLimits& limits) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!isolate(identity)) _exit(kNotIsolated);
  const pid_t program = fork();
  if (program < 0) _exit(kNotIsolated);
  if (program == 0) become_python(input, limits);
  int status = 0;
  while (waitpid(program, &status, 0) < 0) {
    if (errno != EINTR) _exit(kFailed);
  }
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : kFailed);
}

/// The exit status of the child, which is killed with all that it started when its time is over.
int wait_for(pid_t child, std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  int status = 0;
  for (;;) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return WIFEXITED(status) ? WEXITSTATUS(status) : kFailed;
    if (ended < 0 && errno != EINTR) return kFailed;
    if (std::chrono::steady_clock::now() >= end) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(-child, SIGKILL);
  kill(child, SIGKILL);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return kFailed;
}

/// An unnamed file with the program, at its beginning.
int file_of(const std::string& program) {
  const int file = memfd_create("program", MFD_CLOEXEC);
  if (file < 0) fail("a program cannot be run: memfd_create: {}", std::strerror(errno));
  for (size_t at = 0; at < program.size();) {
    const ssize_t written = write(file, program.data() + at, program.size() - at);
    if (written < 0) {
      close(file);
      fail("a program cannot be run: {}", std::strerror(errno));
    }
    at += static_cast<size_t>(written);
  }
  lseek(file, 0, SEEK_SET);
  return file;
}

}  // namespace

bool program_passes(const std::string& program, const ProgramLimits& limits) {
  const Identity identity = own_identity();
  const int input = file_of(program);
  const pid_t child = fork();
  if (child < 0) {
    close(input);
    fail("a program cannot be run: fork: {}", std::strerror(errno));
  }
  if (child == 0) be_child(input, identity, limits);
  close(input);
  // The interpreter's start is no part of the program's time.
  const int status = wait_for(child, limits.time + std::chrono::milliseconds(500));
  if (status == kNotIsolated) {
    fail(
        "programs are not run here: the system gives no process user, network, process and mount namespaces "
        "of its "
        "own; run where `unshare -Urnpm true` works");
  }
  if (status == kNoPython) fail("programs are not run here: there is no /usr/bin/python3");
  return status == kPassed;
}

}  // namespace qeval::eval
