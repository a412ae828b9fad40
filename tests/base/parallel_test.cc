#include "base/parallel.h"

#include <atomic>
#include <cstdint>
#include <new>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

namespace qeval {
namespace {

// Under ThreadSanitizer these also show that it knows the order that a loop gives: values go in from before
// it and come out after it, without any other synchronisation.

TEST(Parallel, RangesCoverEveryElementOnce) {
  for (const int64_t count : {0, 1, 63, 64, 1000, 100'000}) {
    std::vector<int64_t> in(static_cast<size_t>(count)), out(in.size());
    std::iota(in.begin(), in.end(), 1);
    parallel_ranges(count, 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) out[static_cast<size_t>(i)] += in[static_cast<size_t>(i)];
    });
    EXPECT_EQ(out, in) << count;
  }
}

TEST(Parallel, TasksAreCalledOnceEachAlsoInsideOfOthers) {
  constexpr int64_t kOuter = 50, kInner = 40;
  std::vector<std::vector<int64_t>> made(kOuter);
  parallel_tasks(kOuter, [&](int64_t i) {
    std::vector<int64_t>& mine = made[static_cast<size_t>(i)];
    mine.resize(kInner);
    parallel_tasks(kInner, [&](int64_t j) { mine[static_cast<size_t>(j)] += i * kInner + j; });
    mine.push_back(std::accumulate(mine.begin(), mine.end(), int64_t{0}));
  });
  int64_t total = 0;
  for (const std::vector<int64_t>& mine : made) total += mine.back();
  EXPECT_EQ(total, kOuter * kInner * (kOuter * kInner - 1) / 2);
}

TEST(Parallel, WhatABodyThrowsReachesTheCaller) {
  for (int round = 0; round < 20; ++round) {
    std::vector<int64_t> seen(1000);
    try {
      parallel_tasks(std::ssize(seen), [&](int64_t i) {
        seen[static_cast<size_t>(i)] = i;
        if (i == 700) throw std::runtime_error("element " + std::to_string(i));
      });
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "element 700");
    }
    EXPECT_EQ(seen[700], 700);
  }
}

// A thread that waits for the inner loop would otherwise take other elements of the outer one: what the body
// had in its scratch was overwritten. It takes more than two threads, and pieces that are worth stealing.
TEST(Parallel, ABodyIsNotInterruptedByAnotherOfItsLoop) {
  constexpr int kThreads = 8;
  const tbb::global_control allowed(tbb::global_control::max_allowed_parallelism, kThreads);
  tbb::task_arena threads(kThreads);
  std::atomic<int64_t> interrupted{0};
  for (int round = 0; round < 20; ++round) {
    threads.execute([&] {
      parallel_tasks(64, [&](int64_t i) {
        thread_local int64_t scratch;
        scratch = i;
        const std::thread::id owner = std::this_thread::get_id();
        parallel_tasks(16, [&](int64_t) {
          const int turns = std::this_thread::get_id() == owner ? 3 : 50;
          for (int turn = 0; turn < turns; ++turn) std::this_thread::yield();
        });
        if (scratch != i) ++interrupted;
      });
    });
  }
  EXPECT_EQ(interrupted, 0);
}

// A server that had refused one request for want of memory wrote to a null pointer in the next.
TEST(AlignedBuffer, IsEmptyAfterMemoryWasRefusedAndAfterAMove) {
  AlignedBuffer buffer(64);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they end the process instead
  EXPECT_THROW(buffer.resize(PTRDIFF_MAX), std::bad_alloc);
  EXPECT_EQ(buffer.size(), 0U);
#endif
  buffer.resize(32);
  ASSERT_NE(buffer.data(), nullptr);
  AlignedBuffer other = std::move(buffer);
  EXPECT_EQ(other.size(), 32U);
  // NOLINTBEGIN(bugprone-use-after-move, clang-analyzer-cplusplus.Move): this is what is tested
  EXPECT_EQ(buffer.size(), 0U);
  buffer.resize(16);
  ASSERT_NE(buffer.data(), nullptr);
  // NOLINTEND(bugprone-use-after-move, clang-analyzer-cplusplus.Move)
}

}  // namespace
}  // namespace qeval
