#include "base/error.h"

#include "base/unicode.h"

namespace qeval {

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  while (!text.empty()) {
    if (out.size() >= limit) return out + "…";
    size_t good = find_invalid_utf8(text);
    if (good == std::string_view::npos) good = text.size();
    for (size_t i = 0; i < good; ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      const bool starts_character = (byte & 0xC0) != 0x80;
      if (starts_character && out.size() >= limit) return out + "…";
      if (byte < 0x20 || byte == 0x7F) {
        out += fmt::format("\\x{:02x}", byte);
      } else {
        out += static_cast<char>(byte);
      }
    }
    text.remove_prefix(good);
    if (!text.empty()) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace qeval
