#pragma once

#include <barrier>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/peers.h"

namespace qeval::test {

/// Runs body(peers) on `size` ranks, here threads that meet in one place.
inline void run_ranks(int64_t size, const std::function<void(const Peers&)>& body) {
  std::barrier meeting(size);
  std::vector<std::string> said(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      body({rank, size, [&, rank](std::string_view mine) {
              said[static_cast<size_t>(rank)] = mine;
              meeting.arrive_and_wait();
              std::vector<std::string> all = said;
              meeting.arrive_and_wait();
              return all;
            }});
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace qeval::test
