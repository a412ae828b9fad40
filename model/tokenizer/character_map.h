#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qeval::model {

/// SentencePiece's `precompiled_charsmap`: what characters, and short runs of them, become before text is
/// cut. Applied as `tokenizers` (its step "Precompiled") does, whose results differ from the SentencePiece
/// library's in runs that combine. Immutable.
class CharacterMap {
 public:
  /// Throws Error naming `name` where the map points outside itself.
  static void check(std::string_view map, const std::string& name);

  /// Of a map that has been checked.
  explicit CharacterMap(std::string map);

  /// `text` must be well-formed UTF-8.
  std::string apply(std::string_view text) const;

 private:
  uint32_t unit(size_t at) const;
  std::optional<std::string_view> find(std::string_view text) const;

  // [size of trie in bytes][trie][strings]: a double array (Darts) of 32-bit units, little-endian, whose
  // values are offsets of zero-terminated strings.
  std::string map_;
  std::string_view strings() const;
};

}  // namespace qeval::model
