#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace qeval {

/// The processes that work on one run together, each with a rank; a process alone by default. Everything they
/// tell one another goes through `gather`, which all of them must call equally often and in the same order.
struct Peers {
  int64_t rank = 0, size = 1;
  /// Returns what every rank passed, by rank, on every rank. Empty: this process is alone. Throws Error where
  /// the others cannot be reached any more.
  std::function<std::vector<std::string>(std::string_view mine)> gather{};

  bool alone() const { return size == 1; }
  /// The one that writes what all share, and speaks for all.
  bool is_first() const { return rank == 0; }
};

/// An Error that every rank throws at the same place, so that none waits for another.
class JointError : public Error {
 public:
  using Error::Error;
};

/// What every rank says, by rank.
std::vector<std::string> gather(const Peers& peers, std::string_view mine);

/// Returns when all ranks have come here.
void wait_for_all(const Peers& peers);

/// What rank 0 passes; the others' text is ignored.
std::string from_first(const Peers& peers, std::string_view text);
/// The same for a decision that must not depend on when a rank looks.
bool decided_by_first(const Peers& peers, bool decision);

/// Runs `work` on every rank and waits for all. Where it throws Error on any, every rank throws a JointError
/// (or UsageError) that says what the lowest of them did, naming the rank unless all failed alike. A process
/// alone throws what `work` throws.
void together(const Peers& peers, const std::function<void()>& work);

/// The same for work of rank 0 alone.
void on_first(const Peers& peers, const std::function<void()>& work);

/// sum[i] += the ranks' values[i], added in the order of ranks: the same bits on every rank. `counts[r]` says
/// whether rank r has anything to add. All ranks pass vectors of one length; memory beyond them stays at a
/// few MiB per rank.
void add_in_order(const Peers& peers, const std::vector<bool>& counts, std::span<const float> values,
                  std::span<float> sum);

}  // namespace qeval
