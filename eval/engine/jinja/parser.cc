#include "eval/engine/jinja/parser.h"

#include <algorithm>

#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {
namespace {

constexpr int kMostBlocks = 100;  ///< statements in statements

using Tags = std::vector<std::string_view>;

/// The parser of statements.
class Parser {
 public:
  explicit Parser(std::string_view source) : stream_(tokenize(source)), expressions_(stream_) {}

  Body run() { return body({}); }

 private:
  using Type = Statement::Type;
  std::unique_ptr<Statement> make(Type type, int line) {
    auto out = std::make_unique<Statement>();
    out->type = type;
    out->line = line;
    return out;
  }

  // What stands between tags, up to one of `end` (empty: the end of the template), which is the current
  // token.
  Body body(const Tags& end);
  /// The rest of a tag and its body; `drop`: the tag that ends it is left behind, too.
  Body statements(const Tags& end, bool drop = false);
  std::unique_ptr<Statement> statement();
  std::unique_ptr<Statement> tagged(const std::string& tag);

  std::unique_ptr<Statement> set();
  std::unique_ptr<Statement> loop();
  std::unique_ptr<Statement> branch();
  std::unique_ptr<Statement> with();
  std::unique_ptr<Statement> block();
  std::unique_ptr<Statement> macro();
  std::unique_ptr<Statement> call_block();
  std::unique_ptr<Statement> print();
  std::unique_ptr<Statement> load_template(const std::string& tag);
  void signature(Function& function);
  void skip_context();
  void imported_names();

  [[noreturn]] void fail_at(int line, const std::string& message) const {
    throw TemplateError(message, line);
  }
  [[noreturn]] void fail_unknown(const std::string* tag, int line) const;

  TokenStream stream_;
  ExpressionParser expressions_;
  std::vector<std::string> open_tags_;
  std::vector<Tags> looked_for_;
  int level_ = 0;
};

void Parser::fail_unknown(const std::string* tag, int line) const {
  std::string message = tag == nullptr ? "Unexpected end of template."
                                       : "Encountered unknown tag " + repr_of_string(*tag) + ".";
  if (!looked_for_.empty()) {
    std::string names;
    for (const std::string_view name : looked_for_.back()) {
      names += fmt::format("{}'{}'", names.empty() ? "" : " or ", name);
    }
    const bool expected = tag != nullptr && std::ranges::any_of(looked_for_, [&](const Tags& tags) {
                            return std::ranges::find(tags, *tag) != tags.end();
                          });
    message +=
        expected ? " You probably made a nesting mistake. Jinja is expecting this tag, but currently looking "
                   "for " +
                       names + "."
                 : " Jinja was looking for the following tags: " + names + ".";
  }
  if (!open_tags_.empty()) {
    message += " The innermost block that needs to be closed is " + repr_of_string(open_tags_.back()) + ".";
  }
  fail_at(line, message);
}

Body Parser::body(const Tags& end) {
  if (++level_ > kMostBlocks) {
    fail_at(stream_.current().line,
            fmt::format("statements nested more than {} times, which is not supported", kMostBlocks));
  }
  Body out;
  if (!end.empty()) looked_for_.push_back(end);
  std::unique_ptr<Statement> output;
  const auto print = [&](ExpressionPtr expression) {
    if (output == nullptr) output = make(Type::output, expression->line);
    output->expressions.push_back(std::move(expression));
  };
  const auto flush = [&] {
    if (output != nullptr) out.push_back(std::move(output));
  };
  while (stream_.current().type != TokenType::eof) {
    const Token token = stream_.next();
    if (token.type == TokenType::data) {
      auto text = std::make_unique<Expression>();
      text->line = token.line;
      text->value = std::make_shared<const Text>(Text{token.text});
      print(std::move(text));
    } else if (token.type == TokenType::variable_begin) {
      print(expressions_.tuple({}));
      stream_.expect(TokenType::variable_end);
    } else {  // block_begin: the lexer yields nothing else here
      flush();
      if (std::ranges::any_of(end, [&](std::string_view tag) { return stream_.current().is_name(tag); }))
        break;
      out.push_back(statement());
      stream_.expect(TokenType::block_end);
    }
  }
  flush();
  if (!end.empty()) looked_for_.pop_back();
  --level_;
  return out;
}

Body Parser::statements(const Tags& end, bool drop) {
  stream_.skip_sign(":");  // as in Python
  stream_.expect(TokenType::block_end);
  Body out = body(end);
  if (stream_.current().type == TokenType::eof) {
    looked_for_.push_back(end);
    fail_unknown(nullptr, stream_.current().line);
  }
  if (drop) stream_.next();
  return out;
}

std::unique_ptr<Statement> Parser::statement() {
  const Token tag = stream_.current();
  if (tag.type != TokenType::name) fail_at(tag.line, "tag name expected");
  open_tags_.push_back(tag.text);
  auto out = tagged(tag.text);
  open_tags_.pop_back();
  return out;
}

std::unique_ptr<Statement> Parser::tagged(const std::string& tag) {
  const int line = stream_.current().line;
  if (tag == "set") return set();
  if (tag == "for") return loop();
  if (tag == "if") return branch();
  if (tag == "with") return with();
  if (tag == "block") return block();
  if (tag == "macro") return macro();
  if (tag == "call") return call_block();
  if (tag == "print") return print();
  if (tag == "extends" || tag == "include" || tag == "import" || tag == "from") return load_template(tag);
  if (tag == "break" || tag == "continue") {
    stream_.next();
    return make(tag == "break" ? Type::leave_loop : Type::next_round, line);
  }
  if (tag == "autoescape") {
    stream_.next();
    auto out = make(Type::autoescape, line);
    out->expression = expressions_.expression();
    out->body = statements({"endautoescape"}, true);
    return out;
  }
  if (tag == "filter") {
    stream_.next();
    auto out = make(Type::filter, line);
    out->expression = expressions_.filters(nullptr, true);
    out->body = statements({"endfilter"}, true);
    return out;
  }
  if (tag == "generation") {
    stream_.next();
    auto out = make(Type::generation, line);
    out->function = std::make_unique<Function>();
    out->function->body = statements({"endgeneration"}, true);
    return out;
  }
  open_tags_.pop_back();
  fail_unknown(&tag, line);
}

std::unique_ptr<Statement> Parser::set() {
  const int line = stream_.next().line;
  ExpressionPtr target = expressions_.target({}, true);
  if (stream_.skip_sign("=")) {
    auto out = make(Type::set, line);
    out->target = std::move(target);
    out->expression = expressions_.tuple({});
    return out;
  }
  auto out = make(Type::set_block, line);
  out->target = std::move(target);
  out->expression = expressions_.filters(nullptr);
  out->body = statements({"endset"}, true);
  return out;
}

std::unique_ptr<Statement> Parser::loop() {
  auto out = make(Type::loop, stream_.next().line);
  out->target = expressions_.target("in");
  stream_.expect_name("in");
  out->expression = expressions_.tuple({.conditional = false, .end = "recursive"});
  if (stream_.skip_name("if")) out->test = expressions_.expression();
  out->recursive = stream_.skip_name("recursive");
  out->body = statements({"endfor", "else"});
  if (stream_.next().text != "endfor") out->otherwise = statements({"endfor"}, true);
  return out;
}

std::unique_ptr<Statement> Parser::branch() {
  auto out = make(Type::branch, stream_.next().line);
  while (true) {
    ExpressionPtr test = expressions_.tuple({.conditional = false});
    Body then = statements({"elif", "else", "endif"});
    out->branches.emplace_back(std::move(test), std::move(then));
    const Token token = stream_.next();
    if (token.is_name("elif")) continue;
    if (token.is_name("else")) out->branches.emplace_back(nullptr, statements({"endif"}, true));
    return out;
  }
}

std::unique_ptr<Statement> Parser::with() {
  auto out = make(Type::with, stream_.next().line);
  while (stream_.current().type != TokenType::block_end) {
    if (!out->targets.empty()) stream_.expect_sign(",");
    out->targets.push_back(expressions_.target());
    stream_.expect_sign("=");
    out->expressions.push_back(expressions_.expression());
  }
  out->body = statements({"endwith"}, true);
  return out;
}

std::unique_ptr<Statement> Parser::block() {
  auto out = make(Type::block, stream_.next().line);
  out->name = stream_.expect(TokenType::name).text;
  out->scoped = stream_.skip_name("scoped");
  out->required = stream_.skip_name("required");
  if (stream_.current().is_sign("-")) {
    fail_at(stream_.current().line,
            "Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an "
            "underscore instead.");
  }
  out->body = statements({"endblock"}, true);
  stream_.skip_name(out->name);
  return out;
}

void Parser::signature(Function& function) {
  stream_.expect_sign("(");
  while (!stream_.current().is_sign(")")) {
    if (!function.parameters.empty()) stream_.expect_sign(",");
    ExpressionPtr parameter = expressions_.name_target();
    if (stream_.skip_sign("=")) {
      function.defaults.push_back(expressions_.expression());
    } else if (!function.defaults.empty()) {
      fail_at(stream_.current().line, "non-default argument follows default argument");
    }
    function.parameters.push_back(std::move(parameter));
  }
  stream_.expect_sign(")");
}

std::unique_ptr<Statement> Parser::macro() {
  auto out = make(Type::macro, stream_.next().line);
  out->target = expressions_.name_target();
  out->function = std::make_unique<Function>();
  out->function->name = out->target->name;
  signature(*out->function);
  out->function->body = statements({"endmacro"}, true);
  return out;
}

std::unique_ptr<Statement> Parser::call_block() {
  auto out = make(Type::call, stream_.next().line);
  out->function = std::make_unique<Function>();
  if (stream_.current().is_sign("(")) signature(*out->function);
  out->expression = expressions_.expression();
  if (out->expression->type != Expression::Type::call) fail_at(out->line, "expected call");
  out->function->body = statements({"endcall"}, true);
  return out;
}

std::unique_ptr<Statement> Parser::print() {
  auto out = make(Type::output, stream_.next().line);
  while (stream_.current().type != TokenType::block_end) {
    if (!out->expressions.empty()) stream_.expect_sign(",");
    out->expressions.push_back(expressions_.expression());
  }
  return out;
}

/// `with context`, `without context`.
void Parser::skip_context() {
  if ((stream_.current().is_name("with") || stream_.current().is_name("without")) &&
      stream_.look().is_name("context")) {
    stream_.next();
    stream_.next();
  }
}

/// `a, b as c` behind `import`.
void Parser::imported_names() {
  for (bool first = true;; first = false) {
    if (!first) stream_.expect_sign(",");
    const Token token = stream_.current();
    if (token.type != TokenType::name) stream_.expect(TokenType::name);
    if ((token.is_name("with") || token.is_name("without")) && stream_.look().is_name("context")) break;
    if (expressions_.name_target()->name.starts_with('_')) {
      fail_at(token.line, "names starting with an underline can not be imported");
    }
    if (stream_.skip_name("as")) expressions_.name_target();
    if (!stream_.current().is_sign(",")) break;
  }
}

std::unique_ptr<Statement> Parser::load_template(const std::string& tag) {
  auto out = make(Type::load_template, stream_.next().line);
  out->name = tag;
  out->expression = expressions_.expression();
  if (tag == "include" && stream_.current().is_name("ignore") && stream_.look().is_name("missing")) {
    stream_.next();
    stream_.next();
  }
  if (tag == "import") {
    stream_.expect_name("as");
    expressions_.name_target();
  }
  if (tag == "from") {
    stream_.expect_name("import");
    imported_names();
  }
  skip_context();
  return out;
}

}  // namespace

TokenStream::TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  checked(0);
}

const Token& TokenStream::checked(size_t at) const {
  if (tokens_[at].type == TokenType::error) throw TemplateError(tokens_[at].text, tokens_[at].line);
  return tokens_[at];
}

const Token& TokenStream::look() {
  return checked(std::min(at_ + 1, tokens_.size() - 1));
}

Token TokenStream::next() {
  Token out = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  checked(at_);
  return out;
}

bool TokenStream::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

bool TokenStream::skip_sign(std::string_view sign) {
  if (!current().is_sign(sign)) return false;
  next();
  return true;
}

void TokenStream::unexpected(std::string_view expected) const {
  const Token& token = current();
  if (token.type == TokenType::eof) {
    throw TemplateError(fmt::format("unexpected end of template, expected '{}'.", expected), token.line);
  }
  throw TemplateError(fmt::format("expected token '{}', got {}", expected, repr_of_string(describe(token))),
                      token.line);
}

Token TokenStream::expect(TokenType type) {
  if (current().type != type) {
    Token wanted;
    wanted.type = type;
    wanted.text = "name";
    unexpected(describe(wanted));
  }
  return next();
}

void TokenStream::expect_name(std::string_view name) {
  if (!skip_name(name)) unexpected(name);
}

void TokenStream::expect_sign(std::string_view sign) {
  if (!skip_sign(sign)) unexpected(sign);
}

Body parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace qeval::jinja
