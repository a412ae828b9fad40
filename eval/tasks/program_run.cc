#include "eval/tasks/program_run.h"

#if defined(__linux__)

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

namespace qeval::eval {
namespace {

constexpr size_t kWordSize = 32;

/// exec() as the harness's scorer has it, in an empty namespace. Only a program that comes to its end has the
/// word written that stands before it in the file 3; meanwhile the word is no variable's value, but lies on
/// the interpreter's stack. A process that the program forks has no way to say it.
constexpr const char* kRunner =
    "import os\n"
    "def source():\n"
    "    with open(3, 'rb') as file:\n"
    "        return file.read().decode('utf-8', 'surrogatepass')\n"
    "os.register_at_fork(after_in_child=lambda: os.dup2(0, 4))\n"
    "try:\n"
    "    os.write(4, (os.read(3, 32), exec(source(), {}))[0])\n"
    "except BaseException:\n"
    "    pass\n"
    "os._exit(0)\n";

/// A file of the parent's, which closes with its owner.
struct File {
  int number = -1;
  explicit File(int opened = -1) : number(opened) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (number >= 0) close(number);
  }
};

struct Pipe {
  File out, in;
  Pipe() {
    int both[2];
    if (pipe2(both, O_CLOEXEC | O_NONBLOCK) != 0)
      fail("a program cannot be run: pipe: {}", std::strerror(errno));
    out.number = both[0];
    in.number = both[1];
  }
  /// What was written, of which a little is enough.
  std::string text() const {
    std::array<char, 256> buffer{};
    const ssize_t length = read(out.number, buffer.data(), buffer.size());
    return length > 0 ? std::string(buffer.data(), static_cast<size_t>(length)) : std::string();
  }
};

/// What the child needs; made before it is forked, since it must not allocate.
struct Job {
  std::array<char, 64> users{}, groups{};
  std::array<char, PATH_MAX> home{};
  int source = -1;   ///< the word, then the program
  int word = -1;     ///< takes the word of a program that came to its end
  int refusal = -1;  ///< takes what is missing; closed when Python starts, so no program reaches it
  ProgramLimits limits;
};

/// Everything below runs in the child of a process with threads: only calls that are safe there.

/// fork() without the C library's part, whose locks another thread may have held.
pid_t fork_into(uint64_t flags) {
  clone_args arguments{};
  arguments.flags = flags;
  arguments.exit_signal = SIGCHLD;
  return static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
}

[[noreturn]] void refuse_job(const Job& job, const char* what) {
  [[maybe_unused]] const ssize_t written = write(job.refusal, what, std::strlen(what));
  _exit(1);
}

bool write_text(const char* path, const char* text) {
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  const size_t length = std::strlen(text);
  const bool written = write(file, text, length) == static_cast<ssize_t>(length);
  close(file);
  return written;
}

void limit(int resource, rlim_t value) {
  const rlimit both{value, value};
  setrlimit(static_cast<__rlimit_resource_t>(resource), &both);
}

bool take_identity(const Job& job) {
  // Needed before a group is mapped, where there is such a file.
  write_text("/proc/self/setgroups", "deny");
  return write_text("/proc/self/uid_map", job.users.data()) &&
         write_text("/proc/self/gid_map", job.groups.data());
}

bool set_attributes(const char* path, unsigned flags, uint64_t attributes) {
  mount_attr wanted{};
  wanted.attr_set = attributes;
  return syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &wanted, sizeof wanted) == 0;
}

/// An empty folder in its place, if there is one.
bool hide(const char* folder) {
  return mount("none", folder, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k") == 0 ||
         errno == ENOENT || errno == ENOTDIR;
}

/// A new /dev with the devices that do no harm: a read-only file system keeps nobody from writing to a disk.
bool replace_devices() {
  constexpr std::array devices{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
  std::array<int, devices.size()> taken{};
  for (size_t i = 0; i < devices.size(); ++i) {
    taken[i] =
        static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, devices[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    if (taken[i] < 0) return false;
  }
  if (!set_attributes("/", AT_RECURSIVE, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV))
    return false;
  if (mount("none", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755") != 0) return false;
  for (size_t i = 0; i < devices.size(); ++i) {
    const int place = open(devices[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (place < 0) return false;
    close(place);
    if (syscall(SYS_move_mount, taken[i], "", AT_FDCWD, devices[i], MOVE_MOUNT_F_EMPTY_PATH) != 0)
      return false;
    close(taken[i]);
  }
  return set_attributes("/dev", 0, MOUNT_ATTR_RDONLY);
}

/// Every file system becomes read-only, what is another's is hidden, and /tmp is a new folder in memory,
/// which becomes the current one.
bool shut_files(const Job& job) {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  if (!replace_devices()) return false;
  for (const char* folder : {"/run", "/var/run", "/var/tmp", "/home", "/root"})
    if (!hide(folder)) return false;
  if (mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=32m,mode=700") != 0) return false;
  if (job.home[0] != 0 && !hide(job.home.data())) return false;
  // Only the namespace's own processes, of them only those of the program; where a container's mounts forbid
  // that, none.
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=4,subset=pid") != 0 &&
      !hide("/proc"))
    return false;
  return chdir("/tmp") == 0;
}

/// Nothing can be mounted, unmounted or taken back without capabilities, and none can be had again.
bool drop_capabilities() {
  for (unsigned long each = 0; each < 64; ++each) {
    if (prctl(PR_CAPBSET_DROP, each, 0, 0, 0) != 0) {
      if (errno == EINVAL && each > 0) break;  // past the last
      return false;
    }
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (prctl(PR_SET_SECUREBITS, (SECURE_ALL_BITS & ~issecure_mask(SECURE_KEEP_CAPS)) | SECURE_ALL_LOCKS, 0, 0,
            0) != 0)
    return false;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  return syscall(SYS_capset, &header, none.data()) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/// Refuses sockets but those of the Internet, whose network is empty (a Unix socket's file can be connected
/// to on a read-only file system, too), and the calls that would give capabilities in yet another namespace.
bool filter_calls() {
#if defined(__x86_64__)
  constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#else
  constexpr unsigned kArchitecture = 0;
#endif
  constexpr unsigned kNewNamespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET |
                                      CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  constexpr unsigned kRefused = SECCOMP_RET_ERRNO | EPERM;
  constexpr unsigned kNumber = offsetof(seccomp_data, nr);
  constexpr unsigned kFirst =
      offsetof(seccomp_data, args);  // the low half, on these little-endian processors
  constexpr unsigned kSecond = kFirst + sizeof(uint64_t);
#define QEVAL_LOAD(where) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, where)
#define QEVAL_RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define QEVAL_SKIP_UNLESS(value, count) \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(value), 0, count)
#define QEVAL_SKIP_IF(value, count) \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(value), count, 0)
#define QEVAL_REFUSE(call) QEVAL_SKIP_UNLESS(call, 1), QEVAL_RETURN(kRefused)
  static constexpr sock_filter filter[] = {
      QEVAL_LOAD(offsetof(seccomp_data, arch)), QEVAL_SKIP_IF(kArchitecture, 1), QEVAL_RETURN(kRefused),
      QEVAL_LOAD(kNumber),
      // Calls of the third kind of an x86-64 processor have numbers of their own.
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000U, 0, 1), QEVAL_RETURN(kRefused),
      QEVAL_REFUSE(SYS_unshare), QEVAL_REFUSE(SYS_setns), QEVAL_REFUSE(SYS_mount), QEVAL_REFUSE(SYS_umount2),
      QEVAL_REFUSE(SYS_pivot_root), QEVAL_REFUSE(SYS_open_tree), QEVAL_REFUSE(SYS_move_mount),
      QEVAL_REFUSE(SYS_mount_setattr), QEVAL_REFUSE(SYS_fsopen), QEVAL_REFUSE(SYS_fsmount),
      QEVAL_REFUSE(SYS_ptrace), QEVAL_REFUSE(SYS_bpf), QEVAL_REFUSE(SYS_perf_event_open),
      QEVAL_REFUSE(SYS_userfaultfd), QEVAL_REFUSE(SYS_keyctl), QEVAL_REFUSE(SYS_add_key),
      QEVAL_REFUSE(SYS_request_key), QEVAL_REFUSE(SYS_io_uring_setup),
      // The C library then asks for clone, whose flags can be seen from here.
      QEVAL_SKIP_UNLESS(SYS_clone3, 1), QEVAL_RETURN(SECCOMP_RET_ERRNO | ENOSYS),
      QEVAL_SKIP_UNLESS(SYS_clone, 4), QEVAL_LOAD(kFirst),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kNewNamespaces, 0, 1), QEVAL_RETURN(kRefused),
      QEVAL_RETURN(SECCOMP_RET_ALLOW), QEVAL_SKIP_UNLESS(SYS_socket, 5), QEVAL_LOAD(kFirst),
      QEVAL_SKIP_IF(AF_INET, 2), QEVAL_SKIP_IF(AF_INET6, 1), QEVAL_RETURN(kRefused),
      QEVAL_RETURN(SECCOMP_RET_ALLOW),
      // Of pairs only streams: a datagram's socket can be pointed elsewhere.
      QEVAL_SKIP_UNLESS(SYS_socketpair, 4), QEVAL_LOAD(kSecond), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf),
      QEVAL_SKIP_IF(SOCK_STREAM, 1), QEVAL_RETURN(kRefused), QEVAL_RETURN(SECCOMP_RET_ALLOW)};
#undef QEVAL_LOAD
#undef QEVAL_RETURN
#undef QEVAL_SKIP_UNLESS
#undef QEVAL_SKIP_IF
#undef QEVAL_REFUSE
  const sock_fprog program{static_cast<unsigned short>(std::size(filter)), const_cast<sock_filter*>(filter)};
  return kArchitecture != 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

/// The files 0 to 2 become /dev/null, 3 the program and 4 its word; 5 is closed by exec.
bool arrange_files(Job& job) {
  const int source = fcntl(job.source, F_DUPFD, 10), word = fcntl(job.word, F_DUPFD, 10);
  const int refusal = fcntl(job.refusal, F_DUPFD, 10);
  const int nowhere = open("/dev/null", O_RDWR);
  if (source < 0 || word < 0 || refusal < 0 || nowhere < 0) return false;
  for (const int standard : {0, 1, 2})
    if (dup2(nowhere, standard) < 0) return false;
  if (dup2(source, 3) < 0 || dup2(word, 4) < 0 || dup3(refusal, 5, O_CLOEXEC) < 0) return false;
  job.refusal = 5;
  return close_range(6, ~0U, 0) == 0;
}

[[noreturn]] void become_python(Job& job) {
  if (!arrange_files(job)) refuse_job(job, "files");
  if (!drop_capabilities()) refuse_job(job, "dropping of capabilities");
  if (!filter_calls()) refuse_job(job, "filter of system calls");
  const auto seconds = static_cast<rlim_t>((job.limits.time.count() + 999) / 1000);
  limit(RLIMIT_CPU, seconds);
  limit(RLIMIT_AS, static_cast<rlim_t>(job.limits.memory_bytes));
  limit(RLIMIT_FSIZE, static_cast<rlim_t>(job.limits.file_bytes));
  limit(RLIMIT_NPROC, static_cast<rlim_t>(job.limits.processes));
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NOFILE, 64);
  const char* const arguments[] = {"python3", "-I", "-S", "-c", kRunner, nullptr};
  const char* const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", nullptr};
  for (const char* path : {"/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3"})
    execve(path, const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
  refuse_job(job, "python3");
}

/// The first process of the namespaces: prepares them and waits for the program. All that is left of what the
/// program started ends with this process, which ends with the program, with its parent, or when that kills
/// it; the program can do nothing about it. Its memory is a copy of the parent's, and not to be read.
[[noreturn]] void be_first(Job& job) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!take_identity(job)) refuse_job(job, "user namespace");
  if (!shut_files(job)) refuse_job(job, "mount namespace");
  prctl(PR_SET_DUMPABLE, 0);
  const pid_t program = fork_into(0);
  if (program < 0) refuse_job(job, "process namespace");
  if (program == 0) become_python(job);
  for (;;) {
    const pid_t ended = waitpid(-1, nullptr, 0);
    if (ended == program || (ended < 0 && errno != EINTR)) _exit(0);
  }
}

// From here on, the parent.

/// Waits for the first process, which is killed with all others of its namespace when the time is over.
void wait_for(pid_t first, std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    const pid_t ended = waitpid(first, nullptr, WNOHANG);
    if (ended == first || (ended < 0 && errno != EINTR)) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(first, SIGKILL);
  while (waitpid(first, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::string random_word() {
  std::string out(kWordSize, '\0');
  if (getrandom(out.data(), out.size(), 0) != static_cast<ssize_t>(out.size()))
    fail("a program cannot be run: getrandom: {}", std::strerror(errno));
  return out;
}

/// Into an unnamed file, which is then at its beginning.
void fill(const File& file, const std::string& text) {
  if (file.number < 0) fail("a program cannot be run: memfd_create: {}", std::strerror(errno));
  for (size_t at = 0; at < text.size();) {
    const ssize_t written = write(file.number, text.data() + at, text.size() - at);
    if (written < 0) fail("a program cannot be run: {}", std::strerror(errno));
    at += static_cast<size_t>(written);
  }
  lseek(file.number, 0, SEEK_SET);
}

/// The user's folder; empty where that is one of the system's, as users of services have it, since Python
/// lives there.
std::string private_home() {
  namespace fs = std::filesystem;
  const char* named = std::getenv("HOME");
  if (named == nullptr || *named != '/') return {};
  std::error_code error;
  const fs::path home = fs::canonical(named, error);
  if (error || home == home.root_path()) return {};
  const fs::path first = *std::next(home.begin());
  for (const char* system : {"usr", "bin", "sbin", "lib", "lib64"})
    if (first == system) return {};
  return home.string();
}

Job make_job(const ProgramLimits& limits) {
  Job out;
  out.limits = limits;
  // Not root inside either, so that exec gives nothing back.
  fmt::format_to_n(out.users.data(), out.users.size() - 1, "1000 {} 1", geteuid());
  fmt::format_to_n(out.groups.data(), out.groups.size() - 1, "1000 {} 1", getegid());
  const std::string home = private_home();
  home.copy(out.home.data(), out.home.size() - 1);
  return out;
}

}  // namespace

bool program_passes(const std::string& program, const ProgramLimits& limits) {
  const std::string word = random_word();
  const File source(memfd_create("program", MFD_CLOEXEC));
  fill(source, word + program);
  Pipe said, refused;
  Job job = make_job(limits);
  job.source = source.number;
  job.word = said.in.number;
  job.refusal = refused.in.number;
  const pid_t first = fork_into(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC |
                                CLONE_NEWUTS | CLONE_CLEAR_SIGHAND);
  if (first == 0) be_first(job);
  const int error = errno;
  if (first > 0) wait_for(first, limits.time);
  const std::string missing = first > 0 ? refused.text() : std::string(std::strerror(error));
  if (missing == "python3") fail("programs are not run here: there is no /usr/bin/python3");
  if (!missing.empty()) {
    fail(
        "programs are not run here: the system gives no process user, network, process and mount namespaces "
        "of its own ({}); run where `unshare -Urnpm true` works",
        missing);
  }
  return said.text() == word;
}

}  // namespace qeval::eval

#endif
