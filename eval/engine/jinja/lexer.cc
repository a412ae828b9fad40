#include "eval/engine/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {
namespace {

std::string with_newlines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\r') {
      out += '\n';
      if (at + 1 < text.size() && text[at + 1] == '\n') ++at;
    } else {
      out += text[at];
    }
  }
  return out;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// What stands between a string's quotes, without Python's escapes (its codec "unicode-escape").
class Unescaper {
 public:
  Unescaper(std::string_view text, int line) : text_(text), line_(line) {}

  std::string run() {
    while (at_ < text_.size()) {
      if (text_[at_] != '\\') {
        out_ += text_[at_++];
      } else {
        ++at_;
        escape();
      }
    }
    return std::move(out_);
  }

 private:
  void escape() {
    const char c = text_[at_++];  // a string does not end in a backslash
    constexpr std::string_view kLetters = "abfnrtv\\'\"";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t found = kLetters.find(c); found != std::string_view::npos) {
      out_ += kMeanings[found];
    } else if (c == '\n') {
      // a line that goes on
    } else if (c >= '0' && c <= '7') {
      --at_;
      char32_t value = 0;
      for (int i = 0; i < 3 && at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '7'; ++i) {
        value = value * 8 + static_cast<char32_t>(text_[at_++] - '0');
      }
      append_utf8(out_, value);
    } else if (c == 'x') {
      hexadecimal(2, "truncated \\xXX escape");
    } else if (c == 'u') {
      hexadecimal(4, "truncated \\uXXXX escape");
    } else if (c == 'U') {
      hexadecimal(8, "truncated \\UXXXXXXXX escape");
    } else if (c == 'N') {
      throw TemplateError("a character by its name (\\N{...}) is not supported; accepted: \\uXXXX", line_);
    } else {
      out_ += '\\';
      out_ += c;
    }
  }

  void hexadecimal(int digits, const char* truncated) {
    char32_t value = read_hexadecimal(digits, truncated);
    if (value >= 0xD800 && value < 0xDC00 && digits == 4 && text_.substr(at_).starts_with("\\u")) {
      at_ += 2;  // Python keeps the two halves apart, and cannot print them
      read_hexadecimal(4, truncated);
      value = 0xD800;
    }
    if (value >= 0xD800 && value < 0xE000) {
      throw TemplateError("half a surrogate pair in a string, which no output can hold", line_);
    }
    if (value > 0x10FFFF) throw TemplateError("illegal Unicode character", line_);
    append_utf8(out_, value);
  }

  char32_t read_hexadecimal(int digits, const char* truncated) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = at_ < text_.size() ? hex_value(text_[at_]) : -1;
      if (digit < 0) throw TemplateError(truncated, line_);
      value = value * 16 + static_cast<char32_t>(digit);
      ++at_;
    }
    return value;
  }

  std::string_view text_;
  int line_;
  size_t at_ = 0;
  std::string out_;
};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_newlines(source)) {
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    try {
      while (at_ < source_.size()) text();
    } catch (const TemplateError& error) {
      add(TokenType::error, error.what());
    }
    add(TokenType::eof, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool starts(std::string_view text) const { return rest().starts_with(text); }
  [[noreturn]] void fail_here(const std::string& message) const { throw TemplateError(message, line_); }

  void add(TokenType type, std::string_view text) {
    Token token;
    token.type = type;
    token.line = line_;
    token.text = text;
    tokens_.push_back(std::move(token));
  }
  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    at_ = to;
  }
  size_t skip_space(size_t at) const {
    while (at < source_.size()) {
      const CodePoint c = code_point_at(source_, at);
      if (!is_python_space(c.value)) break;
      at += c.length;
    }
    return at;
  }

  /// Where a raw block's tag ends that begins at `at`, or npos: `{%- raw -%}`.
  size_t raw_begin(size_t at) const {
    const std::string_view all = source_;
    at += 2;
    if (at < all.size() && (all[at] == '-' || all[at] == '+')) ++at;
    at = skip_space(at);
    if (!all.substr(at).starts_with("raw")) return std::string::npos;
    at = skip_space(at + 3);
    if (all.substr(at).starts_with("-%}")) return skip_space(at + 3);
    return all.substr(at).starts_with("%}") ? at + 2 : std::string::npos;
  }

  /// Text up to the next tag, and the tag.
  void text() {
    size_t tag = at_;
    while ((tag = source_.find('{', tag)) != std::string::npos) {
      if (tag + 1 < source_.size() && std::string_view("%{#").find(source_[tag + 1]) != std::string::npos)
        break;
      ++tag;
    }
    if (tag == std::string::npos) {
      add(TokenType::data, rest());
      advance(source_.size());
      return;
    }
    const char kind = source_[tag + 1];
    const size_t raw_end = kind == '%' ? raw_begin(tag) : std::string::npos;
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    data(tag, sign, kind != '{');
    advance(tag);
    if (raw_end != std::string::npos) {
      advance(raw_end);
      starts_line_ = source_[at_ - 1] == '\n';
      raw();
      return;
    }
    at_ = tag + (sign == '-' || sign == '+' ? 3 : 2);
    starts_line_ = false;
    if (kind == '#') {
      comment();
    } else {
      add(kind == '%' ? TokenType::block_begin : TokenType::variable_begin, "");
      code(kind == '%');
    }
  }

  /// The text in front of a tag, without the white space that the tag takes.
  void data(size_t end, char sign, bool block) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      text = strip_right(text);
    } else if (sign != '+' && block) {
      const size_t line_start = text.rfind('\n') + 1;
      if ((line_start > 0 || starts_line_) && strip(text.substr(line_start)).empty()) {
        text = text.substr(0, line_start);
      }
    }
    if (!text.empty()) add(TokenType::data, text);
  }

  /// Behind `%}` or `#}` at `at`, whose sign stands in front of it.
  size_t behind(size_t at, char sign) const {
    at += 2;
    if (sign == '-') return skip_space(at);
    return sign != '+' && at < source_.size() && source_[at] == '\n' ? at + 1 : at;
  }
  void leave(size_t to) {
    advance(to);
    starts_line_ = source_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos && at_ >= source_.size()) return;  // jinja2 lets a last, bare "{#" pass
    if (end == std::string::npos) fail_here("Missing end of comment tag");
    leave(behind(end, end > at_ ? source_[end - 1] : '\0'));
  }

  void raw() {
    for (size_t tag = at_; (tag = source_.find("{%", tag)) != std::string::npos; ++tag) {
      size_t at = tag + 2;
      const char sign = at < source_.size() ? source_[at] : '\0';
      if (sign == '-' || sign == '+') ++at;
      at = skip_space(at);
      if (source_.compare(at, 6, "endraw") != 0) continue;
      at = skip_space(at + 6);
      const char last = at < source_.size() ? source_[at] : '\0';
      const bool signed_end = last == '-' || last == '+';
      if (signed_end) ++at;
      if (source_.compare(at, 2, "%}") != 0) continue;
      data(tag, sign, true);
      leave(behind(at, signed_end ? last : '\0'));
      return;
    }
    if (at_ < source_.size()) fail_here("Missing end of raw directive");
  }

  /// The inside of `{% … %}` or `{{ … }}`.
  void code(bool block) {
    brackets_.clear();
    while (true) {
      if (brackets_.empty() && end_of_code(block)) return;
      if (at_ >= source_.size()) return;  // the parser says what is missing
      const CodePoint c = code_point_at(source_, at_);
      if (is_python_space(c.value)) {
        advance(skip_space(at_));
      } else if (number()) {
      } else if (is_word(c.value)) {
        name();
      } else if (c.value == '\'' || c.value == '"') {
        string(static_cast<char>(c.value));
      } else {
        sign();
      }
    }
  }

  bool end_of_code(bool block) {
    const std::string_view end = block ? "%}" : "}}";
    const char sign = at_ < source_.size() ? source_[at_] : '\0';
    const bool is_signed = sign == '-' || (sign == '+' && block);
    const size_t at = at_ + (is_signed ? 1 : 0);
    if (std::string_view(source_).substr(std::min(at, source_.size()), 2) != end) return false;
    add(block ? TokenType::block_end : TokenType::variable_end, "");
    if (block) {
      leave(behind(at, is_signed ? sign : '\0'));
    } else {
      leave(is_signed ? skip_space(at + 2) : at + 2);
    }
    return true;
  }

  size_t digits(size_t at, std::string_view accepted = "0123456789") const {
    const auto is_one = [&](size_t i) {
      return i < source_.size() && accepted.find(source_[i]) != std::string_view::npos;
    };
    if (!is_one(at)) return at;
    while (is_one(at) || (at < source_.size() && source_[at] == '_' && is_one(at + 1))) ++at;
    return at;
  }

  bool number() {
    const char first = source_[at_];
    if (first < '0' || first > '9') return false;
    // A float: digits with a fraction, an exponent or both; not behind a point, as in `x.1.2`.
    size_t end = digits(at_);
    const size_t whole = end;
    if (at_ == 0 || source_[at_ - 1] != '.') {
      if (end < source_.size() && source_[end] == '.') {
        const size_t fraction = digits(end + 1);
        if (fraction > end + 1) end = fraction;
      }
      if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
        size_t exponent = end + 1;
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
        const size_t last = digits(exponent);
        if (last > exponent) end = last;
      }
    }
    if (end > whole) {
      add(TokenType::real, "");
      tokens_.back().real = std::strtod(without_underscores(at_, end).c_str(), nullptr);
      at_ = end;
      return true;
    }
    integer();
    return true;
  }

  std::string without_underscores(size_t from, size_t to) const {
    std::string text = source_.substr(from, to - from);
    std::erase(text, '_');
    return text;
  }

  void integer() {
    size_t begin = at_, end = at_;
    int base = 10;
    if (source_[at_] == '0') {
      const auto prefixed = [&](char letter, std::string_view accepted, int of) {
        if (at_ + 1 >= source_.size() || (source_[at_ + 1] | 0x20) != letter) return false;
        size_t from = at_ + 2;
        if (from < source_.size() && source_[from] == '_') ++from;
        const size_t to = digits(from, accepted);
        if (to == from) return false;
        begin = from;
        end = to;
        base = of;
        return true;
      };
      if (!prefixed('b', "01", 2) && !prefixed('o', "01234567", 8) &&
          !prefixed('x', "0123456789abcdefABCDEF", 16)) {
        end = digits(at_, "0");
      }
    } else {
      end = digits(at_);
    }
    const std::string text = without_underscores(begin, end);
    add(TokenType::integer, source_.substr(at_, end - at_));
    const auto result = std::from_chars(text.data(), text.data() + text.size(), tokens_.back().integer, base);
    if (result.ec != std::errc()) {
      fail_here("the integer " + text.substr(0, 40) + " is beyond 64 bits, which are not supported");
    }
    at_ = end;
  }

  void name() {
    size_t end = at_;
    while (end < source_.size()) {
      const CodePoint c = code_point_at(source_, end);
      if (!is_word(c.value)) break;
      end += c.length;
    }
    add(TokenType::name, std::string_view(source_).substr(at_, end - at_));
    if (!is_identifier(tokens_.back().text)) fail_here("Invalid character in identifier");
    at_ = end;
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) unexpected();
    add(TokenType::string, Unescaper(std::string_view(source_).substr(at_ + 1, end - at_ - 1), line_).run());
    advance(end + 1);
  }

  [[noreturn]] void unexpected() const {
    const CodePoint c = code_point_at(source_, at_);
    fail_here("unexpected char " + repr_of_string(std::string_view(source_).substr(at_, c.length)) + " at " +
              std::to_string(count_code_points(std::string_view(source_).substr(0, at_))));
  }

  void sign() {
    constexpr std::string_view kSigns[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto* found = std::ranges::find_if(kSigns, [&](std::string_view text) { return starts(text); });
    if (found == std::end(kSigns)) unexpected();
    const std::string_view sign = *found;
    constexpr std::string_view kOpen = "{([", kClosed = "})]";
    if (const size_t open = kOpen.find(sign); open != std::string_view::npos) {
      brackets_ += kClosed[open];
    } else if (kClosed.find(sign) != std::string_view::npos) {
      if (brackets_.empty()) fail_here(fmt::format("unexpected '{}'", sign));
      const char expected = brackets_.back();
      brackets_.pop_back();
      if (expected != sign[0]) {
        fail_here(fmt::format("unexpected '{}', expected '{}'", sign, expected));
      }
    }
    add(TokenType::sign, sign);
    at_ += sign.size();
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool starts_line_ = true;  ///< the last tag took a line end, or there was none
  std::string brackets_;     ///< those that must still be closed
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

std::string describe(const Token& token) {
  switch (token.type) {
    case TokenType::data:
      return "template data / text";
    case TokenType::variable_begin:
      return "begin of print statement";
    case TokenType::variable_end:
      return "end of print statement";
    case TokenType::block_begin:
      return "begin of statement block";
    case TokenType::block_end:
      return "end of statement block";
    case TokenType::name:
    case TokenType::sign:
      return token.text;
    case TokenType::string:
      return "string";
    case TokenType::integer:
      return "integer";
    case TokenType::real:
      return "float";
    case TokenType::error:
    case TokenType::eof:
      return "end of template";
  }
  return "";
}

}  // namespace qeval::jinja
