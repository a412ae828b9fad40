/// Programs that models write: what runs, and what it cannot reach.

#include "eval/tasks/program_run.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ProgramRun : public testing::Test {
 protected:
  void SetUp() override {
    try {
      program_passes("x = 1");
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();  // no namespaces, or no Python
    }
  }
};

/// What a program does is held against its tests, and its bounds hold.
TEST_F(ProgramRun, PassesWhatRunsToItsEnd) {
  EXPECT_TRUE(program_passes("def f(x):\n  return x + 1\nassert f(1) == 2"));
  EXPECT_FALSE(program_passes("assert 1 == 2"));
  EXPECT_FALSE(program_passes("def f(:"));
  EXPECT_FALSE(program_passes("import sys; sys.exit(0)"));
  EXPECT_FALSE(program_passes("import os; os._exit(0)"));
  EXPECT_FALSE(program_passes("input()"));
  EXPECT_TRUE(program_passes("print('\u00e4' * 1000000)"));
  const ProgramLimits brief{.time = std::chrono::milliseconds(300), .memory_bytes = int64_t{256} << 20};
  EXPECT_FALSE(program_passes("while True: pass", brief));
  EXPECT_FALSE(program_passes("import time; time.sleep(60)", brief));
  EXPECT_FALSE(program_passes("x = 'x' * (1 << 29)", brief));
  // Neither network nor files of others, and what it starts ends with it.
  EXPECT_TRUE(program_passes(
      "import socket\ns = socket.socket()\ntry:\n  s.connect(('127.0.0.1', 22))\nexcept OSError as "
      "e:\n  assert e.errno == 101, e\nelse:\n  assert False"));
  const test::TemporaryFolder folder;
  EXPECT_TRUE(
      program_passes(fmt::format("try:\n  open('{}', 'w')\nexcept OSError:\n  pass\nelse:\n  assert False",
                                 (folder.path() / "left").string())));
  EXPECT_FALSE(fs::exists(folder.path() / "left"));
  EXPECT_TRUE(program_passes(
      "import os\nassert os.getcwd() == '/tmp' and os.listdir('.') == []\nopen('x', 'w').write('y')"));
}

/// What a program needs to open what was shut: mounts are neither its own nor to be had in a namespace
/// within, and a disk's device, which a read-only file system does not protect, is not there.
TEST_F(ProgramRun, HasNoCapabilities) {
  const std::string calls =
      "import ctypes, os\n"
      "c = ctypes.CDLL(None, use_errno=True)\n"
      "def refused(result):\n"
      "  assert result == -1 and ctypes.get_errno() == 1, (result, ctypes.get_errno())\n";
  EXPECT_TRUE(program_passes(calls + "refused(c.mount(None, b'/', None, 32 | 4096, None))"));
  EXPECT_TRUE(program_passes(calls + "refused(c.mount(b'none', b'/tmp', b'tmpfs', 0, None))"));
  EXPECT_TRUE(program_passes(calls + "os.chdir('/')\nrefused(c.umount2(b'/tmp', 2))"));
  EXPECT_TRUE(program_passes(calls + "refused(c.umount2(b'/proc', 2))"));
  EXPECT_TRUE(program_passes(calls + "refused(c.unshare(0x10000000))"));   // CLONE_NEWUSER
  EXPECT_TRUE(program_passes(calls + "refused(c.sethostname(b'x', 1))"));  // not filtered, a matter of rights
  EXPECT_TRUE(
      program_passes("import ctypes\nassert ctypes.CDLL(None).prctl(23, 0) == 0"));  // PR_CAPBSET_READ
  EXPECT_TRUE(program_passes("import ctypes\nassert ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1"));
  EXPECT_TRUE(program_passes("import os\nassert os.getuid() == os.geteuid() == 1000"));
  EXPECT_TRUE(program_passes(
      "import os\nassert sorted(os.listdir('/dev')) == ['full', 'null', 'random', 'urandom', 'zero']\n"
      "assert len(open('/dev/urandom', 'rb').read(8)) == 8"));
  EXPECT_TRUE(
      program_passes("import os, signal\nos.kill(1, signal.SIGTERM)"));  // a first process is not hurt
}

/// Only coming to the end passes; no exit code does, and none is taken for a system without namespaces.
TEST_F(ProgramRun, AnExitCodeSaysNothing) {
  for (int code = 0; code < 256; ++code) {
    if (code > 2 && code < 110) continue;
    if (code > 130 && code < 255) continue;
    EXPECT_FALSE(program_passes(fmt::format("import os; os._exit({})", code))) << code;
  }
  EXPECT_FALSE(program_passes("import sys; sys._getframe(1).f_globals['leave'](120)"));
  EXPECT_FALSE(program_passes("import os; os.kill(os.getpid(), 9)"));
  EXPECT_FALSE(program_passes("import os\nif os.fork(): os._exit(0)"));  // what is left comes to the end
  EXPECT_TRUE(program_passes("import os\nif os.fork(): os.wait()"));
  EXPECT_FALSE(program_passes("import os\nos.write(4, b'x' * 32)\nos._exit(0)"));
  EXPECT_FALSE(program_passes("import os\nos.write(4, b'x' * 32)"));
  EXPECT_FALSE(program_passes("import os\nos.write(5, b'python3')\nos._exit(1)"));
  EXPECT_FALSE(program_passes("import os\nos.lseek(3, 0, 0)\nos.write(4, os.read(3, 32))\nos._exit(0)"));
  // The word is no variable's.
  EXPECT_TRUE(
      program_passes("import sys\nframe = sys._getframe(1)\nfor names in (frame.f_globals, frame.f_locals):\n"
                     "  assert not any(isinstance(v, bytes) for v in names.values())"));
}

/// Of a program nothing is left, whatever it did to stay.
TEST_F(ProgramRun, LeavesNoProcessBehind) {
  const std::string name = fmt::format("qeval-left-{}", getpid());
  const auto is_left = [&] {
    for (const auto& process : fs::directory_iterator("/proc")) {
      std::ifstream file(process.path() / "cmdline");
      std::string command;
      if (std::getline(file, command, '\0') && command == name) return true;
    }
    return false;
  };
  const std::string stay = "import ctypes, os, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nos.setsid()\n";
  const std::string sleep = fmt::format("os.execv('/usr/bin/sleep', ['{}', '40'])\n", name);
  const ProgramLimits brief{.time = std::chrono::milliseconds(600)};
  EXPECT_FALSE(program_passes(stay + sleep, brief));
  EXPECT_FALSE(is_left());
  EXPECT_TRUE(program_passes(stay + "if os.fork() == 0:\n  os.setsid()\n  " + sleep + "time.sleep(0.2)"));
  EXPECT_FALSE(is_left());
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(program_passes("import time; time.sleep(60)", brief));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1000));
}

/// The user's folder is hidden, but Python is found where that is the system's.
TEST_F(ProgramRun, HidesTheUsersFolder) {
  const char* home = std::getenv("HOME");
  const std::string before = home == nullptr ? "" : home;
  setenv("HOME", "/etc", 1);
  EXPECT_TRUE(program_passes("import os\nassert os.listdir('/etc') == []"));
  for (const char* other : {"/usr", "/bin", "/", "//", "", "relative", "/no/such"}) {
    setenv("HOME", other, 1);
    EXPECT_TRUE(program_passes("import os\nassert os.listdir('/etc') != []")) << other;
  }
  if (home == nullptr)
    unsetenv("HOME");
  else
    setenv("HOME", before.c_str(), 1);
}

/// Neither processes nor sockets nor folders of others.
TEST_F(ProgramRun, SeesNothingOfOthers) {
  EXPECT_TRUE(program_passes(
      "import os\nassert [p for p in os.listdir('/proc') if p.isdigit()] in ([], [str(os.getpid())])\n"
      "assert os.getppid() == 1\ntry:\n  open('/proc/1/cmdline')\nexcept OSError:\n  pass\nelse:\n  assert "
      "False"));
  EXPECT_TRUE(program_passes(
      "import socket\nfor kind in (socket.AF_UNIX, socket.AF_NETLINK, 38, 40):\n  try:\n"
      "    socket.socket(kind, socket.SOCK_STREAM)\n  except OSError as e:\n    assert e.errno == 1, e\n"
      "  else:\n    assert False"));
  EXPECT_TRUE(program_passes(
      "import socket\na, b = socket.socketpair()\na.send(b'x')\nassert b.recv(1) == b'x'\ntry:\n"
      "  socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nexcept OSError as e:\n  assert e.errno == 1\n"
      "else:\n  assert False"));
  EXPECT_TRUE(program_passes("import asyncio\nasync def f(): return 1\nassert asyncio.run(f()) == 1"));
  EXPECT_TRUE(
      program_passes("import os\nfor d in ('/run', '/var/run', '/var/tmp', '/home', '/root', '/tmp'):\n"
                     "  assert not os.path.isdir(d) or os.listdir(d) == [], d"));
}

}  // namespace
}  // namespace qeval::eval
