#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qeval {

/// Byte offset of the first byte that is not well-formed UTF-8 (overlong forms, surrogates and code points
/// above U+10FFFF are malformed too); npos where all is well.
size_t find_invalid_utf8(std::string_view text);

/// Number of code points; `text` must be well-formed.
size_t count_code_points(std::string_view text);

/// Bytes of the first code point of `text`, and of its first character as a reader sees it (an extended
/// grapheme cluster: with the marks that combine with it); `text` must be well-formed and not empty.
size_t code_point_length(std::string_view text);
size_t grapheme_length(std::string_view text);

/// Unicode's normal forms: composed or decomposed, of canonical or (k) compatibility equivalents.
enum class NormalForm : uint8_t { nfc, nfd, nfkc, nfkd };

/// `text` in a normal form; it must be well-formed.
std::string normalize(std::string_view text, NormalForm form);

/// Python's str.isspace for one code point: what str.strip() and re's \s treat as white space.
bool is_python_space(char32_t code_point);

/// Python's str.strip(), str.lstrip() and str.rstrip() without arguments, on well-formed UTF-8.
std::string_view strip(std::string_view text);
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
/// The parts between the separators, at least one, empty ones too; as str.split(separator).
std::vector<std::string> split_at(std::string_view text, std::string_view separator);

/// How every text file is read, wherever it was written: without the byte order mark in front, and with line
/// ends CRLF as LF. A carriage return by itself stays.
std::string_view without_byte_order_mark(std::string_view text);
std::string with_unix_line_ends(std::string_view text);

/// Python's str.lower(), str.capitalize() (first letter in title case, the rest lower), str.title() (so for
/// every word), str.upper() and str.casefold() on well-formed UTF-8, by Unicode's full case mappings: "ß"
/// begins a text as "Ss", "İ" is lowered to "i̇" in two code points, and a Σ that ends a word to "ς".
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);
std::string upper(std::string_view text);
std::string casefold(std::string_view text);

}  // namespace qeval
