#include "eval/tasks/python_list.h"

#include <charconv>

#include "base/characters.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

/// One string literal from the front of `text`; its escapes are those that str() writes, and octal ones are
/// not among them.
std::optional<std::string> take_string(std::string_view& text) {
  if (text.empty() || (text.front() != '\'' && text.front() != '"')) return {};
  const char quote = text.front();
  text.remove_prefix(1);
  std::string out;
  while (!text.empty() && text.front() != quote) {
    if (text.front() == '\n') return {};
    if (text.front() != '\\') {
      out += text.front();
      text.remove_prefix(1);
      continue;
    }
    if (text.size() < 2) return {};
    const char kind = text[1];
    text.remove_prefix(2);
    const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (digits > 0) {
      uint32_t value = 0;
      if (text.size() < digits) return {};
      const auto read = std::from_chars(text.data(), text.data() + digits, value, 16);
      if (read.ec != std::errc() || read.ptr != text.data() + digits || value > 0x10FFFF ||
          (value >= 0xD800 && value <= 0xDFFF))
        return {};
      append_utf8(out, static_cast<char32_t>(value));
      text.remove_prefix(digits);
      continue;
    }
    switch (kind) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      case '\\':
      case '\'':
      case '"':
        out += kind;
        break;
      default:
        return {};
    }
  }
  if (text.empty()) return {};
  text.remove_prefix(1);
  return out;
}

}  // namespace

std::optional<std::vector<std::string>> python_list(std::string_view text) {
  text = strip(text);
  if (!text.starts_with('[')) return {};
  text.remove_prefix(1);
  std::vector<std::string> out;
  for (;;) {
    text = strip_left(text);
    if (text == "]") return out;
    std::optional<std::string> item = take_string(text);
    if (!item) return {};
    out.push_back(*std::move(item));
    text = strip_left(text);
    if (text == "]") return out;
    if (!text.starts_with(',')) return {};
    text.remove_prefix(1);
  }
}

}  // namespace qeval::eval
