#include "eval/distributed/shard.h"

#include <charconv>

#include "base/error.h"

namespace qeval::eval {
namespace {

constexpr int64_t kMostShards = 100'000;

/// The whole text as a number, or −1.
int64_t whole_number(std::string_view text) {
  int64_t value = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size() ? value : -1;
}

}  // namespace

std::string name(const Shard& shard) {
  return fmt::format("{}/{}", shard.index, shard.count);
}

Shard parse_shard(std::string_view text) {
  const size_t slash = text.find('/');
  Shard shard{-1, -1};
  if (slash != std::string_view::npos)
    shard = {whole_number(text.substr(0, slash)), whole_number(text.substr(slash + 1))};
  if (shard.count < 1 || shard.count > kMostShards || shard.index < 1 || shard.index > shard.count) {
    fail("shard {}: which of how many expected, from 1/n to n/n, n at most {}", printable(text), kMostShards);
  }
  return shard;
}

}  // namespace qeval::eval
