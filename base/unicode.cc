#include "base/unicode.h"

#include <cstdlib>

#include <utf8proc.h>

#include "base/error.h"

namespace qeval {
namespace {

const utf8proc_uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const utf8proc_uint8_t*>(text.data());
}

/// Every letter lower, the first in title case if asked; bytes that are not UTF-8 stay as they are.
std::string map_case(std::string_view text, bool title_first) {
  std::string out;
  out.reserve(text.size());
  size_t at = 0;
  while (at < text.size()) {
    utf8proc_int32_t code_point = 0;
    const auto length =
        utf8proc_iterate(bytes_of(text) + at, static_cast<utf8proc_ssize_t>(text.size() - at), &code_point);
    if (length < 1) {
      out += text[at++];
      continue;
    }
    const bool title = title_first && at == 0;
    utf8proc_uint8_t bytes[4];
    const auto size =
        utf8proc_encode_char(title ? utf8proc_totitle(code_point) : utf8proc_tolower(code_point), bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
    at += static_cast<size_t>(length);
  }
  return out;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    utf8proc_int32_t code_point = 0;
    const auto length =
        utf8proc_iterate(bytes_of(text) + at, static_cast<utf8proc_ssize_t>(text.size() - at), &code_point);
    if (length < 1) return at;
    at += static_cast<size_t>(length);
  }
  return std::string_view::npos;
}

size_t count_code_points(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

std::string normalize(std::string_view text, NormalForm form) {
  const bool composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const int options = UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                      (compatible ? UTF8PROC_COMPAT : 0);
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(bytes_of(text), static_cast<utf8proc_ssize_t>(text.size()), &result,
                                   static_cast<utf8proc_option_t>(options));
  if (length < 0) {
    std::free(result);
    fail("cannot normalize text: {}", utf8proc_errmsg(length));
  }
  std::string out(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
  std::free(result);
  return out;
}

bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    utf8proc_int32_t code_point = 0;
    const auto length =
        utf8proc_iterate(bytes_of(text), static_cast<utf8proc_ssize_t>(text.size()), &code_point);
    if (length < 1 || !is_python_space(static_cast<char32_t>(code_point))) break;
    text.remove_prefix(static_cast<size_t>(length));
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    utf8proc_int32_t code_point = 0;
    const auto length = utf8proc_iterate(bytes_of(text) + start,
                                         static_cast<utf8proc_ssize_t>(text.size() - start), &code_point);
    if (length < 1 || !is_python_space(static_cast<char32_t>(code_point))) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string_view strip(std::string_view text) {
  return strip_right(strip_left(text));
}

std::string lower(std::string_view text) {
  return map_case(text, false);
}
std::string capitalize(std::string_view text) {
  return map_case(text, true);
}

}  // namespace qeval
