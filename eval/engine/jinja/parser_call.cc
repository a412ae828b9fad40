#include "eval/engine/jinja/parser.h"
#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {

ExpressionPtr ExpressionParser::with_arguments(ExpressionPtr call, std::unique_ptr<Arguments> arguments) {
  for (const auto& part : arguments->positional) deepen(*call, part.get());
  for (const auto& [name, part] : arguments->named) deepen(*call, part.get());
  deepen(*call, arguments->rest.get());
  deepen(*call, arguments->named_rest.get());
  call->arguments = std::move(arguments);
  return call;
}

std::unique_ptr<Arguments> ExpressionParser::arguments() {
  const Level level(*this);
  const int line = stream_.current().line;
  stream_.expect_sign("(");
  auto out = std::make_unique<Arguments>();
  const auto ensure = [&](bool fine) {
    if (!fine) throw TemplateError("invalid syntax for function call expression", line);
  };
  bool first = true;
  while (!stream_.current().is_sign(")")) {
    if (!first) {
      stream_.expect_sign(",");
      if (stream_.current().is_sign(")")) break;
    }
    first = false;
    if (stream_.skip_sign("*")) {
      ensure(out->rest == nullptr && out->named_rest == nullptr);
      out->rest = expression();
    } else if (stream_.skip_sign("**")) {
      ensure(out->named_rest == nullptr);
      out->named_rest = expression();
    } else if (stream_.current().type == TokenType::name && stream_.look().is_sign("=")) {
      ensure(out->named_rest == nullptr);
      std::string name = stream_.next().text;
      stream_.next();
      out->named.emplace_back(std::move(name), expression());
    } else {
      ensure(out->rest == nullptr && out->named_rest == nullptr && out->named.empty());
      out->positional.push_back(expression());
    }
  }
  stream_.expect_sign(")");
  return out;
}

ExpressionPtr ExpressionParser::call(ExpressionPtr of) {
  const int line = stream_.current().line;
  return with_arguments(make(Expression::Type::call, line, parts_of(std::move(of))), arguments());
}

std::string ExpressionParser::dotted_name() {
  std::string name = stream_.expect(TokenType::name).text;
  while (stream_.skip_sign(".")) name += "." + stream_.expect(TokenType::name).text;
  return name;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr input, bool begun) {
  while (begun || stream_.current().is_sign("|")) {
    if (!begun) stream_.next();
    begun = false;
    const int line = stream_.current().line;
    std::string name = dotted_name();
    ExpressionPtr out = make(Expression::Type::filter, line, parts_of(std::move(input)));
    out->name = std::move(name);
    input = with_arguments(std::move(out),
                           stream_.current().is_sign("(") ? arguments() : std::make_unique<Arguments>());
  }
  return input;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr of) {
  const Level level(*this);
  const int line = stream_.next().line;
  const bool negated = stream_.skip_name("not");
  ExpressionPtr out = make(Expression::Type::test, line, parts_of(std::move(of)));
  out->name = dotted_name();
  auto operands = std::make_unique<Arguments>();
  const Token& token = stream_.current();
  const bool has_operand = token.type == TokenType::name || token.type == TokenType::string ||
                           token.type == TokenType::integer || token.type == TokenType::real ||
                           token.is_sign("[") || token.is_sign("{");
  if (token.is_sign("(")) {
    operands = arguments();
  } else if (has_operand && !token.is_name("else") && !token.is_name("or") && !token.is_name("and")) {
    if (token.is_name("is")) throw TemplateError("You cannot chain multiple tests with is", token.line);
    ExpressionPtr operand = primary();
    operands->positional.push_back(postfix(std::move(operand)));
  }
  out = with_arguments(std::move(out), std::move(operands));
  return negated ? make(Expression::Type::negation, line, parts_of(std::move(out))) : std::move(out);
}

}  // namespace qeval::jinja
