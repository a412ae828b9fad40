#include "base/unicode.h"

#include <algorithm>
#include <cstdlib>

#include <utf8proc.h>

#include "base/characters.h"
#include "base/error.h"

namespace qeval {
namespace {

const utf8proc_uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const utf8proc_uint8_t*>(text.data());
}

struct LongTitle {
  utf8proc_int32_t letter;
  std::string_view title;
};
/// The letters whose title case is several: Unicode's SpecialCasing.txt, its entries without a condition.
constexpr LongTitle kLongTitles[] = {
    {0x00DF, "Ss"},
    {0x0149, "\u02BCN"},
    {0x01F0, "J\u030C"},
    {0x0390, "\u0399\u0308\u0301"},
    {0x03B0, "\u03A5\u0308\u0301"},
    {0x0587, "\u0535\u0582"},
    {0x1E96, "H\u0331"},
    {0x1E97, "T\u0308"},
    {0x1E98, "W\u030A"},
    {0x1E99, "Y\u030A"},
    {0x1E9A, "A\u02BE"},
    {0x1F50, "\u03A5\u0313"},
    {0x1F52, "\u03A5\u0313\u0300"},
    {0x1F54, "\u03A5\u0313\u0301"},
    {0x1F56, "\u03A5\u0313\u0342"},
    {0x1FB2, "\u1FBA\u0345"},
    {0x1FB4, "\u0386\u0345"},
    {0x1FB6, "\u0391\u0342"},
    {0x1FB7, "\u0391\u0342\u0345"},
    {0x1FC2, "\u1FCA\u0345"},
    {0x1FC4, "\u0389\u0345"},
    {0x1FC6, "\u0397\u0342"},
    {0x1FC7, "\u0397\u0342\u0345"},
    {0x1FD2, "\u0399\u0308\u0300"},
    {0x1FD3, "\u0399\u0308\u0301"},
    {0x1FD6, "\u0399\u0342"},
    {0x1FD7, "\u0399\u0308\u0342"},
    {0x1FE2, "\u03A5\u0308\u0300"},
    {0x1FE3, "\u03A5\u0308\u0301"},
    {0x1FE4, "\u03A1\u0313"},
    {0x1FE6, "\u03A5\u0342"},
    {0x1FE7, "\u03A5\u0308\u0342"},
    {0x1FF2, "\u1FFA\u0345"},
    {0x1FF4, "\u038F\u0345"},
    {0x1FF6, "\u03A9\u0342"},
    {0x1FF7, "\u03A9\u0342\u0345"},
    {0xFB00, "Ff"},
    {0xFB01, "Fi"},
    {0xFB02, "Fl"},
    {0xFB03, "Ffi"},
    {0xFB04, "Ffl"},
    {0xFB05, "St"},
    {0xFB06, "St"},
    {0xFB13, "\u0544\u0576"},
    {0xFB14, "\u0544\u0565"},
    {0xFB15, "\u0544\u056B"},
    {0xFB16, "\u054E\u0576"},
    {0xFB17, "\u0544\u056D"},
};

/// Unicode's property Case_Ignorable: marks, modifiers, and the signs that may stand inside a word.
bool is_case_ignorable(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return std::u32string_view(
                 U"'.:\u00B7\u0387\u055F\u05F4\u2018\u2019\u2024\u2027\uFE13\uFE52\uFE55\uFF07\uFF0E"
                 U"\uFF1A")
                 .find(c) != std::u32string_view::npos;
  }
}

/// Unicode's property Cased, of code points that are not case-ignorable.
bool is_cased(char32_t c) {
  return is_lower(c) || is_upper(c) || is_title(c);
}

constexpr char32_t kCapitalSigma = 0x3A3;

/// Whether a capital sigma in front of `behind` is followed by a cased letter, others between them ignored.
bool cased_follows(std::string_view behind) {
  for (size_t at = 0; at < behind.size();) {
    const CodePoint c = code_point_at(behind, at);
    if (!is_case_ignorable(c.value)) return is_cased(c.value);
    at += c.length;
  }
  return false;
}

void append_title(std::string& out, char32_t c) {
  const auto* longer = std::ranges::find(kLongTitles, static_cast<utf8proc_int32_t>(c), &LongTitle::letter);
  if (longer != std::ranges::end(kLongTitles)) {
    out += longer->title;
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

/// Greek letters with an iota below, which is a letter of its own in upper case: what stands before it.
char32_t before_iota(char32_t c) {
  constexpr char32_t kRows[] = {0x1F08, 0x1F28, 0x1F68};  // U+1F80 to U+1FAF, two rows of eight for each
  if (c >= 0x1F80 && c <= 0x1FAF) return kRows[(c - 0x1F80) / 16] + (c & 7);
  switch (c) {
    case 0x1FB3:
    case 0x1FBC:
      return 0x391;
    case 0x1FC3:
    case 0x1FCC:
      return 0x397;
    case 0x1FF3:
    case 0x1FFC:
      return 0x3A9;
    default:
      return 0;
  }
}

void append_upper(std::string& out, char32_t c) {
  const auto upper_of = [](char32_t letter) {
    return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(letter)));
  };
  if (const char32_t before = before_iota(c)) {
    append_utf8(out, before);
    append_utf8(out, 0x399);
    return;
  }
  const auto* longer = std::ranges::find(kLongTitles, static_cast<utf8proc_int32_t>(c), &LongTitle::letter);
  if (longer == std::ranges::end(kLongTitles)) return append_utf8(out, upper_of(c));
  for (size_t at = 0; at < longer->title.size();) {
    const CodePoint letter = code_point_at(longer->title, at);
    append_utf8(out, upper_of(letter.value));
    at += letter.length;
  }
}

/// Which letters are not lowered: none, the first (in title case), the first of every word (so, too).
enum class Titles : uint8_t { none, first, words };

/// Bytes that are not UTF-8 stay as they are.
std::string map_case(std::string_view text, Titles titles) {
  std::string out;
  out.reserve(text.size());
  bool in_word = false;      // the last code point that is not case-ignorable is cased
  bool after_cased = false;  // the last one is
  size_t at = 0;
  while (at < text.size()) {
    const CodePoint c = code_point_at(text, at);
    const bool title = titles == Titles::words ? !after_cased : titles == Titles::first && at == 0;
    const bool valid = c.length > 1 || c.value < 0x80;
    at += c.length;
    if (!valid) {
      out += text[at - 1];
    } else if (title) {
      append_title(out, c.value);
    } else if (c.value == 0x130) {
      out += "i\u0307";
    } else if (c.value == kCapitalSigma && in_word && !cased_follows(text.substr(at))) {
      out += "\u03C2";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))));
    }
    after_cased = valid && is_cased(c.value);
    if (!valid || !is_case_ignorable(c.value)) in_word = after_cased;
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

size_t code_point_length(std::string_view text) {
  return code_point_at(text, 0).length;
}

size_t grapheme_length(std::string_view text) {
  CodePoint last = code_point_at(text, 0);
  size_t length = last.length;
  for (utf8proc_int32_t state = 0; length < text.size();) {
    const CodePoint next = code_point_at(text, length);
    if (utf8proc_grapheme_break_stateful(last.value, next.value, &state)) break;
    length += next.length;
    last = next;
  }
  return length;
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

std::vector<std::string> split_at(std::string_view text, std::string_view separator) {
  std::vector<std::string> out;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    out.emplace_back(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    if (end == std::string_view::npos) return out;
    begin = end + separator.size();
  }
}

std::string_view strip(std::string_view text) {
  return strip_right(strip_left(text));
}

std::string_view without_byte_order_mark(std::string_view text) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  return text.starts_with(kMark) ? text.substr(kMark.size()) : text;
}

std::string with_unix_line_ends(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\r' || !text.substr(at + 1).starts_with('\n')) out += text[at];
  }
  return out;
}

std::string lower(std::string_view text) {
  return map_case(text, Titles::none);
}
std::string capitalize(std::string_view text) {
  return map_case(text, Titles::first);
}
std::string title(std::string_view text) {
  return map_case(text, Titles::words);
}

std::string upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.length == 1 && c.value >= 0x80) {
      out += text[at];
    } else {
      append_upper(out, c.value);
    }
    at += c.length;
  }
  return out;
}

std::string casefold(std::string_view text) {
  utf8proc_uint8_t* result = nullptr;
  const auto length =
      utf8proc_map(bytes_of(text), static_cast<utf8proc_ssize_t>(text.size()), &result, UTF8PROC_CASEFOLD);
  if (length < 0) {
    std::free(result);
    fail("cannot fold the case of text: {}", utf8proc_errmsg(length));
  }
  std::string out(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
  std::free(result);
  return out;
}

}  // namespace qeval
