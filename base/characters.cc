#include "base/characters.h"

#include <algorithm>
#include <iterator>

#include <utf8proc.h>

namespace qeval {
namespace {

struct CharacterRange {
  char32_t first, last;
};
bool within(const CharacterRange* begin, const CharacterRange* end, char32_t c) {
  const CharacterRange* next =
      std::upper_bound(begin, end, c, [](char32_t x, const CharacterRange& r) { return x < r.first; });
  return next != begin && c <= std::prev(next)->last;
}
template <size_t N>
bool within(const CharacterRange (&ranges)[N], char32_t c) {
  return within(std::begin(ranges), std::end(ranges), c);
}

/// Unicode's Other_Lowercase and Other_Uppercase: letters by use, not by category.
constexpr CharacterRange kOtherLower[] = {
    {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},    {0x2E0, 0x2E4},
    {0x345, 0x345},     {0x37A, 0x37A},     {0x1D2C, 0x1D6A},   {0x1D78, 0x1D78},  {0x1D9B, 0x1DBF},
    {0x2071, 0x2071},   {0x207F, 0x207F},   {0x2090, 0x209C},   {0x2170, 0x217F},  {0x24D0, 0x24E9},
    {0x2C7C, 0x2C7D},   {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},  {0xAB5C, 0xAB5F},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA}};
constexpr CharacterRange kOtherUpper[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
/// Numeric_Type=Digit without the decimals.
constexpr CharacterRange kOtherDigits[] = {
    {0xB2, 0xB3},     {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},   {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247C},   {0x2488, 0x2490},
    {0x24EA, 0x24EA}, {0x24F5, 0x24FD},   {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},
    {0x278A, 0x2792}, {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};
/// Ideographs that stand for numbers.
constexpr std::u32string_view kNumerals =
    U"㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮"
    U"貳贰阡陆陌陸零"
    U"\uF96B\uF973\uF978\uF9B2\uF9D1\uF9D3\uF9FD\U00020001\U00020064\U000200E2\U00020121\U0002092A\U00020983"
    U"\U0002098C\U0002099C\U00020AEA\U00020AFD\U00020B19\U00022390\U00022998\U00023B1B\U0002626D\U0002F890";

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace

CodePoint code_point_at(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  utf8proc_int32_t value = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                       static_cast<utf8proc_ssize_t>(text.size() - at), &value);
  if (length < 1) return {first, 1};
  return {static_cast<char32_t>(value), static_cast<size_t>(length)};
}

void append_utf8(std::string& out, char32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

bool is_alphabetic(char32_t c) {
  const utf8proc_category_t of = category(c);
  return of >= UTF8PROC_CATEGORY_LU && of <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_ND;
}
bool is_digit(char32_t c) {
  return is_decimal(c) || within(kOtherDigits, c);
}
bool is_numeric(char32_t c) {
  const utf8proc_category_t of = category(c);
  return of == UTF8PROC_CATEGORY_ND || of == UTF8PROC_CATEGORY_NL || of == UTF8PROC_CATEGORY_NO ||
         (c >= 0x3405 && kNumerals.find(c) != std::u32string_view::npos);
}
bool is_printable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}
bool is_lower(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LL || within(kOtherLower, c);
}
bool is_upper(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LU || within(kOtherUpper, c);
}
bool is_title(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LT;
}
bool is_word(char32_t c) {
  return c == '_' || is_alphabetic(c) || is_numeric(c);
}

int decimal_value(char32_t c) {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  if (!is_decimal(c)) return -1;
  char32_t zero =
      c;  // every script has its ten in a row, beginning at a zero that decomposes or stands alone
  while (zero > 0 && c - zero < 9 && is_decimal(zero - 1)) --zero;
  // Mathematical digits stand in five rows without a gap, from U+1D7CE.
  return static_cast<int>(c >= 0x1D7CE && c <= 0x1D7FF ? (c - 0x1D7CE) % 10 : c - zero);
}

bool is_identifier(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const utf8proc_category_t of = category(c.value);
    const bool starts = c.value == '_' || is_alphabetic(c.value) || of == UTF8PROC_CATEGORY_NL;
    const bool continues = of == UTF8PROC_CATEGORY_ND || of == UTF8PROC_CATEGORY_MN ||
                           of == UTF8PROC_CATEGORY_MC || of == UTF8PROC_CATEGORY_PC || c.value == 0xB7;
    if (!starts && (at == 0 || !continues)) return false;
    at += c.length;
  }
  return !text.empty();
}

}  // namespace qeval
