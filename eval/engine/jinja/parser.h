#pragma once

#include <string_view>

#include "eval/engine/jinja/lexer.h"
#include "eval/engine/jinja/syntax.h"

namespace qeval::jinja {

/// Reads tokens one by one, with one to look at behind the current one.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens);
  const Token& current() const { return tokens_[at_]; }
  const Token& look();
  Token next();  ///< the current one, which is then left behind
  bool skip_name(std::string_view name);
  bool skip_sign(std::string_view sign);
  /// The current token if it is of that type; raises "expected token 'name', got '('".
  Token expect(TokenType type);
  void expect_name(std::string_view name);
  void expect_sign(std::string_view sign);

 private:
  [[noreturn]] void unexpected(std::string_view expected) const;
  const Token& checked(size_t at) const;
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

/// The parser of expressions; that of statements is built on it.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  /// `conditional`: whether `a if b else c` may stand there.
  ExpressionPtr expression(bool conditional = true);

  /// Where a tuple without brackets may stand, and what else ends it ("in", "recursive").
  struct TupleRules {
    bool simplified = false;  ///< names and literals only
    bool conditional = true;
    bool parentheses = false;  ///< in brackets, where it may be empty
    bool fields = false;       ///< `namespace.attribute` may stand there, to be set
    std::string_view end = {};
  };
  ExpressionPtr tuple(const TupleRules& rules);
  /// What is assigned to.
  ExpressionPtr target(std::string_view end = {}, bool fields = false);
  ExpressionPtr name_target();
  /// A chain of filters on `input`, which may be null; `begun`: the first one has no `|` in front.
  ExpressionPtr filters(ExpressionPtr input, bool begun = false);

 private:
  /// One level of nesting, while it lives.
  class Level {
   public:
    explicit Level(ExpressionParser& parser);
    ~Level() { --parser_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    ExpressionParser& parser_;
  };
  template <typename... Parts>
  static std::vector<ExpressionPtr> parts_of(Parts... parts) {
    std::vector<ExpressionPtr> out;
    (out.push_back(std::move(parts)), ...);
    return out;
  }

  static void deepen(Expression& expression, const Expression* part);
  static ExpressionPtr with_arguments(ExpressionPtr call, std::unique_ptr<Arguments> arguments);
  ExpressionPtr make(Expression::Type type, int line, std::vector<ExpressionPtr> parts = {});
  ExpressionPtr either();
  ExpressionPtr both();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filter = true);
  ExpressionPtr primary(bool fields = false);
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr of);
  ExpressionPtr filters_and_tests(ExpressionPtr of);
  ExpressionPtr subscript(ExpressionPtr of);
  ExpressionPtr subscribed();
  ExpressionPtr call(ExpressionPtr of);
  ExpressionPtr test(ExpressionPtr of);
  std::unique_ptr<Arguments> arguments();
  std::string dotted_name();
  bool at_tuple_end(std::string_view end) const;
  bool bind_comparison(std::vector<Comparison>& out);

  TokenStream& stream_;
  int level_ = 0;
};

/// Parses a template. Raises in the words of jinja2's TemplateSyntaxError, with the line.
Body parse(std::string_view source);

}  // namespace qeval::jinja
