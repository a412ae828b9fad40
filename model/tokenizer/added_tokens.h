#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval::model {

/// A token that is cut out of the text before anything else happens to it, as tokenizer.json's `added_tokens`
/// has them.
struct AddedToken {
  std::string content;  // UTF-8
  int32_t id = 0;
  bool special = false;
  bool normalized = false;   // sought in the normalized text, not in the raw one
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // swallows the white space after it
  bool single_word = false;  // only where no word character touches it
};

/// A stretch of text between added tokens, or (id >= 0) an added token.
struct TextSegment {
  std::string_view text;
  int32_t id = -1;
};

/// Finds added tokens: leftmost first, the longest of those that start together, never overlapping.
/// Immutable.
class AddedTokenMatcher {
 public:
  static constexpr size_t kMaxContentBytes = 1024;

  AddedTokenMatcher() = default;
  /// Contents must be non-empty well-formed UTF-8 of at most kMaxContentBytes; of equal contents the first
  /// stays.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  /// Cuts `text` (well-formed UTF-8) into non-empty segments, which point into it.
  std::vector<TextSegment> split(std::string_view text) const;

 private:
  int32_t longest_match(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  // A trie over bytes. Node 0 is the root; root_ repeats its edges as an array because most bytes of a text
  // fail there.
  std::array<int32_t, 256> root_{};
  std::unordered_map<uint64_t, int32_t> edges_;  // node << 8 | byte → node
  std::vector<int32_t> token_of_node_;           // index into tokens_, -1 where none ends
};

/// A token id in 0 … kMaxTokenId.
int32_t read_token_id(const nlohmann::json& value, const std::string& where);

/// {"content", "special", "normalized", "lstrip", "rstrip", "single_word"}, the flags false where missing
/// except `normalized`, which then is the opposite of `special`.
AddedToken read_added_token(const nlohmann::json& object, int32_t id, const std::string& where);

}  // namespace qeval::model
