#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qeval::eval {

/// One of `count` shares of a run's documents that separate processes score, each into a folder of its own;
/// merge_shards() puts them together. Which documents are in it follows from the documents, the tokenizer and
/// the model's shape alone.
struct Shard {
  int64_t index = 1;  ///< from 1
  int64_t count = 1;
  bool operator==(const Shard&) const = default;
};

/// "2/5"
std::string name(const Shard& shard);
/// The inverse; throws Error saying what is accepted: 1/n to n/n, n at most 100000.
Shard parse_shard(std::string_view text);

}  // namespace qeval::eval
