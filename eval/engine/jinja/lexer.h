#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::jinja {

enum class TokenType : uint8_t {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  sign,   ///< an operator or a bracket: `text` says which
  error,  ///< `text` says what cannot be read from here on
  eof
};

struct Token {
  TokenType type = TokenType::eof;
  int line = 1;
  std::string text;  ///< of a string its value, of data what is printed
  int64_t integer = 0;
  double real = 0;

  bool is_sign(std::string_view sign) const { return type == TokenType::sign && text == sign; }
  bool is_name(std::string_view name) const { return type == TokenType::name && text == name; }
};

/// A template's tokens, the last one eof. White space is as transformers configures jinja2: `trim_blocks`
/// drops the line end after a block or a comment, `lstrip_blocks` the white space in front of one that begins
/// a line,
/// `-` in a tag all white space on that side, `+` keeps it; a line end that closes the file is dropped.
/// Where the text cannot be read, the last token is an error in the words of jinja2's TemplateSyntaxError:
/// the parser raises it when it comes there, since a mistake further up is reported first.
std::vector<Token> tokenize(std::string_view source);

/// How messages call a token: "end of print statement", "name", "==".
std::string describe(const Token& token);

}  // namespace qeval::jinja
