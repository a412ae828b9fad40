#include "base/peers.h"

#include <algorithm>
#include <cstring>

namespace qeval {

std::vector<std::string> gather(const Peers& peers, std::string_view mine) {
  if (!peers.gather) return {std::string(mine)};
  return peers.gather(mine);
}

void wait_for_all(const Peers& peers) {
  gather(peers, "");
}

std::string from_first(const Peers& peers, std::string_view text) {
  return std::move(gather(peers, peers.is_first() ? text : "").front());
}

bool decided_by_first(const Peers& peers, bool decision) {
  return from_first(peers, decision ? "yes" : "no") == "yes";
}

void together(const Peers& peers, const std::function<void()>& work) {
  if (peers.alone()) {
    work();
    return;
  }
  // A letter before the message: whether there is one, and of which kind.
  std::string mine = "-";
  try {
    work();
  } catch (const UsageError& error) {
    mine = std::string("u") + error.what();
  } catch (const Error& error) {
    mine = std::string("e") + error.what();
  }
  const std::vector<std::string> all = gather(peers, mine);
  const auto failed = std::ranges::find_if(all, [](const std::string& said) { return said != "-"; });
  if (failed == all.end()) return;
  const std::string message = failed->substr(1);
  if (failed->front() == 'u') throw UsageError(message);
  const bool alike = std::ranges::all_of(all, [&](const std::string& said) { return said == *failed; });
  if (alike || failed == all.begin()) throw JointError(message);
  throw JointError(fmt::format("rank {} of {}: {}", failed - all.begin(), peers.size, message));
}

void on_first(const Peers& peers, const std::function<void()>& work) {
  together(peers, [&] {
    if (peers.is_first()) work();
  });
}

void add_in_order(const Peers& peers, const std::vector<bool>& counts, std::span<const float> values,
                  std::span<float> sum) {
  if (peers.alone()) {
    if (!counts[0]) return;
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
    return;
  }
  constexpr size_t kChunk = size_t{1} << 18;
  for (size_t begin = 0; begin < sum.size(); begin += kChunk) {
    const auto part = sum.subspan(begin, std::min(kChunk, sum.size() - begin));
    const bool adds = counts[static_cast<size_t>(peers.rank)];
    const auto mine = adds ? values.subspan(begin, part.size()) : std::span<const float>();
    const std::vector<std::string> all =
        gather(peers, {reinterpret_cast<const char*>(mine.data()), mine.size_bytes()});
    std::vector<float> theirs(part.size());
    for (size_t rank = 0; rank < all.size(); ++rank) {
      if (!counts[rank]) continue;
      if (all[rank].size() != part.size_bytes())
        fail("rank {} sends {} bytes of gradients; expected: {}", rank, all[rank].size(), part.size_bytes());
      std::memcpy(theirs.data(), all[rank].data(), part.size_bytes());
      for (size_t i = 0; i < part.size(); ++i) part[i] += theirs[i];
    }
  }
}

}  // namespace qeval
