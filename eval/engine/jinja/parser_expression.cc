#include <algorithm>

#include "eval/engine/jinja/parser.h"
#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {
namespace {

constexpr int kMostLevels = 120;              ///< brackets in brackets
constexpr uint16_t kDeepestExpression = 400;  ///< a chain such as a + b + c + … nests, too

[[noreturn]] void fail_at(int line, const std::string& message) {
  throw TemplateError(message, line);
}

/// How a message calls what cannot be assigned to.
std::string_view class_name(Expression::Type type) {
  switch (type) {
    case Expression::Type::constant:
      return "const";
    case Expression::Type::list:
      return "list";
    case Expression::Type::dict:
      return "dict";
    case Expression::Type::condition:
      return "condexpr";
    case Expression::Type::attribute:
      return "getattr";
    case Expression::Type::item:
      return "getitem";
    case Expression::Type::call:
      return "call";
    case Expression::Type::filter:
      return "filter";
    case Expression::Type::test:
      return "test";
    default:
      return "expression";
  }
}

bool can_assign(const Expression& target) {
  if (target.type == Expression::Type::tuple) {
    return std::ranges::all_of(target.parts, [](const auto& part) { return can_assign(*part); });
  }
  return target.type == Expression::Type::name || target.type == Expression::Type::field;
}

}  // namespace

ExpressionParser::Level::Level(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.level_ > kMostLevels) {
    --parser_.level_;
    fail_at(parser_.stream_.current().line,
            fmt::format("an expression nested more than {} times, which is not supported", kMostLevels));
  }
}

void ExpressionParser::deepen(Expression& expression, const Expression* part) {
  if (part == nullptr || part->depth < expression.depth) return;
  expression.depth = part->depth + 1;
  if (expression.depth > kDeepestExpression) {
    fail_at(expression.line,
            fmt::format("an expression of more than {} steps, which is not supported", kDeepestExpression));
  }
}

ExpressionPtr ExpressionParser::make(Expression::Type type, int line, std::vector<ExpressionPtr> parts) {
  auto out = std::make_unique<Expression>();
  out->type = type;
  out->line = line;
  for (const auto& part : parts) deepen(*out, part.get());
  out->parts = std::move(parts);
  return out;
}

ExpressionPtr ExpressionParser::expression(bool conditional) {
  const Level level(*this);
  if (!conditional) return either();
  int line = stream_.current().line;
  ExpressionPtr out = either();
  while (stream_.skip_name("if")) {
    ExpressionPtr test = either();
    ExpressionPtr otherwise;
    if (stream_.skip_name("else")) otherwise = expression();
    out = make(Expression::Type::condition, line,
               parts_of(std::move(test), std::move(out), std::move(otherwise)));
    line = stream_.current().line;
  }
  return out;
}

ExpressionPtr ExpressionParser::either() {
  int line = stream_.current().line;
  ExpressionPtr left = both();
  while (stream_.skip_name("or")) {
    ExpressionPtr right = both();
    left = make(Expression::Type::either, line, parts_of(std::move(left), std::move(right)));
    line = stream_.current().line;
  }
  return left;
}

ExpressionPtr ExpressionParser::both() {
  int line = stream_.current().line;
  ExpressionPtr left = negation();
  while (stream_.skip_name("and")) {
    ExpressionPtr right = negation();
    left = make(Expression::Type::both, line, parts_of(std::move(left), std::move(right)));
    line = stream_.current().line;
  }
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  if (!stream_.current().is_name("not")) return comparison();
  const Level level(*this);
  const int line = stream_.next().line;
  return make(Expression::Type::negation, line, parts_of(negation()));
}

bool ExpressionParser::bind_comparison(std::vector<Comparison>& out) {
  constexpr std::pair<std::string_view, Comparison> kSigns[] = {
      {"==", Comparison::equal},      {"!=", Comparison::not_equal}, {"<", Comparison::less},
      {"<=", Comparison::less_equal}, {">", Comparison::greater},    {">=", Comparison::greater_equal}};
  for (const auto& [sign, comparison] : kSigns) {
    if (stream_.skip_sign(sign)) {
      out.push_back(comparison);
      return true;
    }
  }
  if (stream_.skip_name("in")) {
    out.push_back(Comparison::in);
    return true;
  }
  if (stream_.current().is_name("not") && stream_.look().is_name("in")) {
    stream_.next();
    stream_.next();
    out.push_back(Comparison::not_in);
    return true;
  }
  return false;
}

ExpressionPtr ExpressionParser::comparison() {
  const int line = stream_.current().line;
  std::vector<ExpressionPtr> operands = parts_of(sum());
  std::vector<Comparison> comparisons;
  while (bind_comparison(comparisons)) operands.push_back(sum());
  if (comparisons.empty()) return std::move(operands.front());
  ExpressionPtr out = make(Expression::Type::comparison, line, std::move(operands));
  out->comparisons = std::move(comparisons);
  return out;
}

ExpressionPtr ExpressionParser::sum() {
  int line = stream_.current().line;
  ExpressionPtr left = concatenation();
  while (stream_.current().is_sign("+") || stream_.current().is_sign("-")) {
    const Binary binary = stream_.next().text == "+" ? Binary::add : Binary::subtract;
    ExpressionPtr right = concatenation();
    left = make(Expression::Type::binary, line, parts_of(std::move(left), std::move(right)));
    left->binary = binary;
    line = stream_.current().line;
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  const int line = stream_.current().line;
  std::vector<ExpressionPtr> parts = parts_of(product());
  while (stream_.skip_sign("~")) parts.push_back(product());
  if (parts.size() == 1) return std::move(parts.front());
  return make(Expression::Type::concatenate, line, std::move(parts));
}

ExpressionPtr ExpressionParser::product() {
  constexpr std::pair<std::string_view, Binary> kSigns[] = {
      {"*", Binary::multiply}, {"/", Binary::divide}, {"//", Binary::floor_divide}, {"%", Binary::modulo}};
  int line = stream_.current().line;
  ExpressionPtr left = power();
  while (true) {
    const auto* sign = std::ranges::find_if(
        kSigns, [&](const auto& entry) { return stream_.current().is_sign(entry.first); });
    if (sign == std::end(kSigns)) return left;
    stream_.next();
    ExpressionPtr right = power();
    left = make(Expression::Type::binary, line, parts_of(std::move(left), std::move(right)));
    left->binary = sign->second;
    line = stream_.current().line;
  }
}

ExpressionPtr ExpressionParser::power() {  // from the left, unlike Python's
  int line = stream_.current().line;
  ExpressionPtr left = unary();
  while (stream_.skip_sign("**")) {
    ExpressionPtr right = unary();
    left = make(Expression::Type::binary, line, parts_of(std::move(left), std::move(right)));
    left->binary = Binary::power;
    line = stream_.current().line;
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filter) {
  const int line = stream_.current().line;
  ExpressionPtr out;
  if (stream_.current().is_sign("-") || stream_.current().is_sign("+")) {
    const Level level(*this);
    const bool minus = stream_.next().text == "-";
    out = make(minus ? Expression::Type::minus : Expression::Type::plus, line, parts_of(unary(false)));
  } else {
    out = primary();
  }
  out = postfix(std::move(out));
  return with_filter ? filters_and_tests(std::move(out)) : std::move(out);
}

ExpressionPtr ExpressionParser::primary(bool fields) {
  const Token token = stream_.current();
  const auto constant = [&](Value value) {
    ExpressionPtr out = make(Expression::Type::constant, token.line);
    out->value = std::move(value);
    return out;
  };
  switch (token.type) {
    case TokenType::name: {
      stream_.next();
      if (token.text == "true" || token.text == "True") return constant(true);
      if (token.text == "false" || token.text == "False") return constant(false);
      if (token.text == "none" || token.text == "None") return constant(Value::none());
      ExpressionPtr out = make(Expression::Type::name, token.line);
      out->name = token.text;
      if (fields && stream_.skip_sign(".")) {
        out->type = Expression::Type::field;
        out->field = stream_.expect(TokenType::name).text;
      }
      return out;
    }
    case TokenType::string: {
      std::string text;
      while (stream_.current().type == TokenType::string) text += stream_.next().text;
      return constant(std::make_shared<const Text>(Text{std::move(text)}));
    }
    case TokenType::integer:
      stream_.next();
      return constant(token.integer);
    case TokenType::real:
      stream_.next();
      return constant(token.real);
    default:
      break;
  }
  if (token.is_sign("(")) {
    stream_.next();
    ExpressionPtr out = tuple({.parentheses = true});
    stream_.expect_sign(")");
    return out;
  }
  if (token.is_sign("[")) return list();
  if (token.is_sign("{")) return dict();
  fail_at(token.line, "unexpected " + repr_of_string(describe(token)));
}

bool ExpressionParser::at_tuple_end(std::string_view end) const {
  const Token& token = stream_.current();
  return token.type == TokenType::variable_end || token.type == TokenType::block_end || token.is_sign(")") ||
         (!end.empty() && token.is_name(end));
}

ExpressionPtr ExpressionParser::tuple(const TupleRules& rules) {
  const Level level(*this);
  int line = stream_.current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) stream_.expect_sign(",");
    if (at_tuple_end(rules.end)) break;
    items.push_back(rules.simplified ? primary(rules.fields) : expression(rules.conditional));
    if (!stream_.current().is_sign(",")) break;
    is_tuple = true;
    line = stream_.current().line;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items.front());
    if (!rules.parentheses) {
      fail_at(stream_.current().line,
              "Expected an expression, got " + repr_of_string(describe(stream_.current())));
    }
  }
  return make(Expression::Type::tuple, line, std::move(items));
}

ExpressionPtr ExpressionParser::target(std::string_view end, bool fields) {
  ExpressionPtr out = tuple({.simplified = true, .fields = fields, .end = end});
  if (!can_assign(*out)) {
    fail_at(out->line, fmt::format("can't assign to '{}'",
                                   out->type == Expression::Type::tuple ? "tuple" : class_name(out->type)));
  }
  return out;
}

ExpressionPtr ExpressionParser::name_target() {
  const Token token = stream_.expect(TokenType::name);
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (token.text == constant) fail_at(token.line, "can't assign to 'name'");
  }
  ExpressionPtr out = make(Expression::Type::name, token.line);
  out->name = token.text;
  return out;
}

ExpressionPtr ExpressionParser::list() {
  const Level level(*this);
  const int line = stream_.current().line;
  stream_.expect_sign("[");
  std::vector<ExpressionPtr> items;
  while (!stream_.current().is_sign("]")) {
    if (!items.empty()) stream_.expect_sign(",");
    if (stream_.current().is_sign("]")) break;
    items.push_back(expression());
  }
  stream_.expect_sign("]");
  return make(Expression::Type::list, line, std::move(items));
}

ExpressionPtr ExpressionParser::dict() {
  const Level level(*this);
  const int line = stream_.current().line;
  stream_.expect_sign("{");
  std::vector<ExpressionPtr> items;
  while (!stream_.current().is_sign("}")) {
    if (!items.empty()) stream_.expect_sign(",");
    if (stream_.current().is_sign("}")) break;
    items.push_back(expression());
    stream_.expect_sign(":");
    items.push_back(expression());
  }
  stream_.expect_sign("}");
  return make(Expression::Type::dict, line, std::move(items));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr of) {
  while (true) {
    if (stream_.current().is_sign(".") || stream_.current().is_sign("[")) {
      of = subscript(std::move(of));
    } else if (stream_.current().is_sign("(")) {
      of = call(std::move(of));
    } else {
      return of;
    }
  }
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr of) {
  while (true) {
    if (stream_.current().is_sign("|")) {
      of = filters(std::move(of));
    } else if (stream_.current().is_name("is")) {
      of = test(std::move(of));
    } else if (stream_.current().is_sign("(")) {
      of = call(std::move(of));
    } else {
      return of;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr of) {
  const Token opening = stream_.next();
  if (opening.text == ".") {
    const Token name = stream_.next();
    if (name.type == TokenType::name) {
      ExpressionPtr out = make(Expression::Type::attribute, opening.line, parts_of(std::move(of)));
      out->name = name.text;
      return out;
    }
    if (name.type != TokenType::integer) fail_at(name.line, "expected name or number");
    ExpressionPtr key = make(Expression::Type::constant, name.line);
    key->value = name.integer;
    return make(Expression::Type::item, opening.line, parts_of(std::move(of), std::move(key)));
  }
  std::vector<ExpressionPtr> keys;
  while (!stream_.current().is_sign("]")) {
    if (!keys.empty()) stream_.expect_sign(",");
    keys.push_back(subscribed());
  }
  stream_.expect_sign("]");
  if (keys.size() == 1 && keys.front()->type == Expression::Type::slice) {
    ExpressionPtr slice = std::move(keys.front());
    deepen(*slice, of.get());
    slice->parts[0] = std::move(of);
    return slice;
  }
  ExpressionPtr key = keys.size() == 1 ? std::move(keys.front())
                                       : make(Expression::Type::tuple, opening.line, std::move(keys));
  return make(Expression::Type::item, opening.line, parts_of(std::move(of), std::move(key)));
}

ExpressionPtr ExpressionParser::subscribed() {
  const Level level(*this);
  const int line = stream_.current().line;
  ExpressionPtr from, to, step;
  const auto at_end = [&] { return stream_.current().is_sign("]") || stream_.current().is_sign(","); };
  if (!stream_.current().is_sign(":")) {
    from = expression();
    if (!stream_.current().is_sign(":")) return from;
  }
  stream_.next();
  if (!stream_.current().is_sign(":") && !at_end()) to = expression();
  if (stream_.skip_sign(":") && !at_end()) step = expression();
  return make(Expression::Type::slice, line,
              parts_of(ExpressionPtr(), std::move(from), std::move(to), std::move(step)));
}

}  // namespace qeval::jinja
