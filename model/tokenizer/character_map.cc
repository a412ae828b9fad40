#include "model/tokenizer/character_map.h"

#include <cstring>

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::model {
namespace {

constexpr size_t kHeadBytes = 4;
/// `tokenizers` looks a character and what combines with it up as a whole only below this length.
constexpr size_t kWholeBytes = 6;

uint32_t read_unit(std::string_view map, size_t at) {
  uint32_t unit = 0;
  std::memcpy(&unit, map.data() + at, sizeof unit);
  return unit;
}

/// How far from a unit its children lie.
constexpr uint32_t offset_of(uint32_t unit) {
  return (unit >> 10) << ((unit & (1U << 9)) >> 6);
}

constexpr bool holds_value(uint32_t unit) {
  return unit >> 31 != 0;
}

}  // namespace

/// Every step of a look-up, and every value, must stay inside.
void CharacterMap::check(std::string_view map, const std::string& name) {
  const auto malformed = [&] { fail("{}: precompiled_charsmap is malformed", name); };
  if (map.size() < kHeadBytes) malformed();
  const size_t trie_bytes = read_unit(map, 0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= map.size() - kHeadBytes || map.back() != '\0')
    malformed();
  const size_t units = trie_bytes / 4;
  const size_t string_bytes = map.size() - kHeadBytes - trie_bytes;
  for (size_t i = 0; i < units; ++i) {
    const uint32_t unit = read_unit(map, kHeadBytes + 4 * i);
    if (holds_value(unit)) {
      if ((unit & 0x7FFFFFFF) >= string_bytes) malformed();
    } else if (((i ^ offset_of(unit)) | 0xFF) >= units) {
      malformed();
    }
  }
}

CharacterMap::CharacterMap(std::string map) : map_(std::move(map)) {}

uint32_t CharacterMap::unit(size_t at) const {
  return read_unit(map_, kHeadBytes + 4 * at);
}

std::string_view CharacterMap::strings() const {
  return std::string_view(map_).substr(kHeadBytes + read_unit(map_, 0));
}

/// What the shortest beginning of `text` that has an entry becomes.
std::optional<std::string_view> CharacterMap::find(std::string_view text) const {
  size_t at = offset_of(unit(0));
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    at ^= byte;
    const uint32_t node = unit(at);
    if ((node & (1U << 31 | 0xFF)) != byte) break;
    at ^= offset_of(node);
    if ((node >> 8 & 1) == 0) continue;
    const uint32_t value = unit(at);
    if (!holds_value(value)) break;  // no map that a trainer wrote
    const std::string_view found = strings().substr(value & 0x7FFFFFFF);
    return found.substr(0, found.find('\0'));
  }
  return std::nullopt;
}

std::string CharacterMap::apply(std::string_view text) const {
  std::string out;
  while (!text.empty()) {
    std::string_view whole = text.substr(0, grapheme_length(text));
    text.remove_prefix(whole.size());
    if (whole.size() < kWholeBytes) {
      if (const auto found = find(whole)) {
        out += *found;
        continue;
      }
    }
    while (!whole.empty()) {
      const std::string_view character = whole.substr(0, code_point_length(whole));
      whole.remove_prefix(character.size());
      out += find(character).value_or(character);
    }
  }
  return out;
}

}  // namespace qeval::model
