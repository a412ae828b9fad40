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
      const bool starts_c1 =  // U+0080 to U+009F, which some terminals obey as they do escapes
          byte == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
      if (starts_c1) {
        out += fmt::format("\\xc2\\x{:02x}", static_cast<unsigned char>(text[++i]));
      } else if (byte < 0x20 || byte == 0x7F) {
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
