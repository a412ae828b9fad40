#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qeval {

/// One code point of a text and the bytes it takes.
struct CodePoint {
  char32_t value = 0;
  size_t length = 0;
};
/// The code point that begins at byte `at`; where the text is not UTF-8, the byte itself, of length 1.
CodePoint code_point_at(std::string_view text, size_t at);
void append_utf8(std::string& out, char32_t code_point);

// Python's classes of one character, as str.isalpha and its kin have them.
bool is_alphabetic(char32_t c);
bool is_decimal(char32_t c);    ///< 0 to 9 in any script
bool is_digit(char32_t c);      ///< decimals, superscripts, digits in circles
bool is_numeric(char32_t c);    ///< digits, fractions, Roman and Chinese numerals
bool is_printable(char32_t c);  ///< what repr() leaves as it is
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_word(char32_t c);  ///< re's \w
/// The value of a decimal in any script, else -1.
int decimal_value(char32_t c);
/// str.isidentifier.
bool is_identifier(std::string_view text);

}  // namespace qeval
