#include "base/memory.h"

#include <limits>

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/file.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval {
namespace {

namespace fs = std::filesystem;

/// A machine's files in a folder.
class Memory : public testing::Test {
 protected:
  Memory() {
    machine(1000);
    own_groups("0::/\n");
  }
  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((folder_.path() / file).parent_path());
    write_file_atomically(folder_.path() / file, text);
  }
  void machine(int64_t kilobytes) const {
    write("meminfo", fmt::format("MemTotal:       99999 kB\nMemAvailable:   {} kB\n", kilobytes));
  }
  void own_groups(const std::string& lines) const { write("own", lines); }
  void version1(const std::string& group, const std::string& most, int64_t used, int64_t cached) const {
    const std::string at = "groups/memory/" + group;
    write(at + "/memory.limit_in_bytes", most + "\n");
    write(at + "/memory.usage_in_bytes", fmt::format("{}\n", used));
    write(at + "/memory.stat",
          fmt::format("inactive_file 7\nactive_file 7\ntotal_inactive_file {}\ntotal_active_file 1\n",
                      cached - 1));
  }
  void version2(const std::string& group, const std::string& most, int64_t used, int64_t cached) const {
    const std::string at = "groups/" + group;
    write(at + "/memory.max", most + "\n");
    write(at + "/memory.current", fmt::format("{}\n", used));
    write(at + "/memory.stat", fmt::format("anon 5\ninactive_file {}\nactive_file 1\n", cached - 1));
  }
  MemoryLimit available() const {
    return available_memory({folder_.path() / "meminfo", folder_.path() / "own", folder_.path() / "groups"});
  }
  void expect(int64_t bytes, std::string_view set_by) const {
    EXPECT_EQ(available().bytes, bytes);
    EXPECT_EQ(available().set_by, set_by);
  }

 private:
  test::TemporaryFolder folder_;
};

constexpr const char* kMachine = "the machine";
constexpr const char* kFirst = "the container's memory.limit_in_bytes";
constexpr const char* kSecond = "the container's memory.max";

TEST_F(Memory, IsWhatTheMachineHasWhereNoGroupLimitsIt) {
  expect(1'024'000, kMachine);
  version2("", "max", 5000, 10);
  version1("", "9223372036854771712", 5000, 10);  // what version 1 says for none
  own_groups("4:cpu,memory:/\n0::/\n");
  expect(1'024'000, kMachine);
}

TEST_F(Memory, IsWhatAGroupOfVersion2Leaves) {
  own_groups("0::/user.slice/run\n");
  version2("user.slice/run", "9000", 6000, 500);
  expect(3500, kSecond);
  version2("user.slice", "8000", 6000, 500);  // holds the other
  expect(2500, kSecond);
  version2("user.slice", "5000", 6000, 500);  // used beyond its limit
  expect(0, kSecond);
  version2("elsewhere", "1", 1, 1);
  version2("user.slice", "max", 6000, 500);
  expect(3500, kSecond);
  machine(2);
  expect(2048, kMachine);
}

TEST_F(Memory, IsWhatAGroupOfVersion1Leaves) {
  own_groups("9:name=systemd:/x\n4:hugetlb,memory:/docker/abc\n2:memoryless:/b\n0::/\n");
  version1("docker/abc", "9000", 6000, 500);
  expect(3500, kFirst);
  version1("docker", "8000", 6000, 500);
  expect(2500, kFirst);
  version1("b", "1", 1, 1);
  version1("x", "1", 1, 1);
  expect(2500, kFirst);
}

// A group without a limit seemed to leave nothing: a sum overflowed when the statistics, which the system
// counts apart, said that more was cached than used. A model of a few kilobytes was refused.
TEST_F(Memory, MoreMayBeCachedThanUsedForAMoment) {
  own_groups("4:memory:/docker/abc\n");
  version1("docker/abc", "9223372036854771712", 6000, 60'000);
  expect(1'024'000, kMachine);
  version1("docker/abc", "9000", 6000, 60'000);
  expect(9000, kFirst);
}

// A container sees its own group as the root, and the host's path in /proc/self/cgroup.
TEST_F(Memory, TheRootIsTheContainersGroup) {
  own_groups("4:memory:/docker/0123456789\n0::/docker/0123456789\n");
  version1("", "9000", 6000, 500);
  expect(3500, kFirst);
  version2("", "8000", 6000, 500);
  expect(2500, kSecond);
  own_groups("0::/../../pod\n");
  expect(2500, kSecond);
}

TEST_F(Memory, FilesThatMakeNoSenseAreNoLimit) {
  own_groups("memory\n:::\n4:memory\n4:memory:relative\n0::/g\n");
  version2("g", "-5", 1, 1);
  version1("", "x", 1, 1);
  expect(1'024'000, kMachine);
  write("meminfo", "MemAvailable: none\n");
  EXPECT_EQ(available().bytes, std::numeric_limits<int64_t>::max());
}

TEST_F(Memory, TooMuchIsRefusedWithTheFigures) {
  EXPECT_NO_THROW(require_memory(1, "x"));
  EXPECT_THAT(message_of([] { require_memory(int64_t{1} << 60, "keys and values", "fewer tokens"); }),
              testing::AllOf(testing::StartsWith("keys and values: needs about 1152921504.6 GB of memory, "),
                             testing::HasSubstr("GB are available ("), testing::EndsWith("or fewer tokens")));
}

/// In bytes: this program has more than a megabyte and less than a terabyte.
TEST_F(Memory, ThisProcessSaysWhatItHas) {
  EXPECT_GT(peak_memory(), int64_t{1} << 20);
  EXPECT_LT(peak_memory(), int64_t{1} << 40);
  EXPECT_GT(own_memory(), int64_t{1} << 16);
  EXPECT_LE(own_memory(), peak_memory());
}

}  // namespace
}  // namespace qeval
