#include "eval/engine/jinja/operators.h"

#include <cmath>

#include "eval/engine/jinja/format.h"
#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

std::string_view sign_of(Binary operation) {
  constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
  return kSigns[static_cast<size_t>(operation)];
}

[[noreturn]] void unsupported(Binary operation, const Value& a, const Value& b) {
  raise("unsupported operand type(s) for {}: '{}' and '{}'", sign_of(operation), type_name(a), type_name(b));
}

[[noreturn]] void overflow(std::string_view sign) {
  raise("an integer beyond 64 bits as the result of {}, which is not supported", sign);
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (a == INT64_MIN && b == -1) overflow("//");
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t out = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out)) overflow("**");
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow("**");
  }
  return out;
}

Value integers(Binary operation, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (operation) {
    case Binary::add:
      if (__builtin_add_overflow(a, b, &out)) overflow("+");
      return out;
    case Binary::subtract:
      if (__builtin_sub_overflow(a, b, &out)) overflow("-");
      return out;
    case Binary::multiply:
      if (__builtin_mul_overflow(a, b, &out)) overflow("*");
      return out;
    case Binary::divide:
      if (b == 0) raise("division by zero");
      return static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b));
    case Binary::floor_divide:
      if (b == 0) raise("integer division or modulo by zero");
      return floor_divide(a, b);
    case Binary::modulo:
      if (b == 0) raise("integer modulo by zero");
      return b == -1 ? int64_t{0} : a - b * floor_divide(a, b);
    case Binary::power:
      if (b >= 0) return integer_power(a, b);
      if (a == 0) raise("0.0 cannot be raised to a negative power");
      return std::pow(static_cast<double>(a), static_cast<double>(b));
  }
  return out;
}

/// Python's float remainder has the sign of the divisor.
double real_modulo(double a, double b) {
  if (b == 0) raise("float modulo");
  double out = std::fmod(a, b);
  if (out != 0) {
    if ((b < 0) != (out < 0)) out += b;
  } else {
    out = std::copysign(0.0, b);
  }
  return out;
}

double real_floor_divide(double a, double b) {
  if (b == 0) raise("float floor division by zero");
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0 && (b < 0) != (remainder < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Value reals(Binary operation, double a, double b) {
  switch (operation) {
    case Binary::add:
      return a + b;
    case Binary::subtract:
      return a - b;
    case Binary::multiply:
      return a * b;
    case Binary::divide:
      if (b == 0) raise("float division by zero");
      return a / b;
    case Binary::floor_divide:
      return real_floor_divide(a, b);
    case Binary::modulo:
      return real_modulo(a, b);
    case Binary::power: {
      if (a == 0 && b < 0) raise("0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b) && std::isfinite(b)) {
        raise("a complex number as the result of **, which is not supported");
      }
      const double out = std::pow(a, b);
      if (std::isinf(out) && std::isfinite(a) && std::isfinite(b)) {
        raise("(34, 'Numerical result out of range')");
      }
      return out;
    }
  }
  return 0.0;
}

Value repeat(Runtime& runtime, const Value& sequence, const Value& times) {
  const auto given = integer_of(times);
  if (!given) raise("can't multiply sequence by non-int of type '{}'", type_name(times));
  const int64_t count = std::max<int64_t>(*given, 0);
  if (sequence.is_string()) {
    runtime.bytes_of(count, static_cast<int64_t>(sequence.string().size()));
    std::string out;
    if (!sequence.string().empty()) {
      for (int64_t i = 0; i < count; ++i) out += sequence.string();
    }
    return runtime.text(std::move(out), sequence.is_markup());
  }
  const auto& items = sequence.list().items;
  runtime.bytes_of(count, static_cast<int64_t>(items.size() * sizeof(Value)));
  std::vector<Value> out;
  if (!items.empty()) {
    for (int64_t i = 0; i < count; ++i) out.insert(out.end(), items.begin(), items.end());
  }
  return runtime.list(std::move(out), sequence.kind() == Kind::list ? List::Type::list : List::Type::tuple);
}

Value concatenate(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string()) {
    if (!b.is_string() && a.is_markup()) unsupported(Binary::add, a, b);
    if (!b.is_string()) raise("can only concatenate str (not \"{}\") to str", type_name(b));
    if (a.is_markup() || b.is_markup()) return runtime.text(escape(runtime, a) + escape(runtime, b), true);
    runtime.bytes(a.string().size() + b.string().size());
    return runtime.text(a.text().bytes + b.text().bytes);
  }
  if (a.kind() != b.kind()) {
    raise("can only concatenate {0} (not \"{1}\") to {0}", type_name(a), type_name(b));
  }
  runtime.bytes((a.list().items.size() + b.list().items.size()) * sizeof(Value));
  std::vector<Value> out = a.list().items;
  out.insert(out.end(), b.list().items.begin(), b.list().items.end());
  return runtime.list(std::move(out), a.kind() == Kind::list ? List::Type::list : List::Type::tuple);
}

}  // namespace

Value binary(Runtime& runtime, Binary operation, const Value& a, const Value& b) {
  if (operation == Binary::modulo && a.is_string()) return percent_format(runtime, a, b);
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) throw TemplateError(value->undefined().message);
  }
  const auto x = integer_of(a), y = integer_of(b);
  if (x && y) return integers(operation, *x, *y);
  const auto u = number_of(a), v = number_of(b);
  if (u && v) return reals(operation, *u, *v);
  const auto is_sequence = [](const Value& value) { return value.is_string() || value.is_sequence(); };
  if (operation == Binary::add && is_sequence(a)) return concatenate(runtime, a, b);
  if (operation == Binary::multiply) {
    if (is_sequence(a)) return repeat(runtime, a, b);
    if (is_sequence(b)) return repeat(runtime, b, a);
  }
  unsupported(operation, a, b);
}

Value negate(const Value& value) {
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  if (const auto integer = integer_of(value)) return integers(Binary::subtract, 0, *integer);
  if (value.is_real()) return -value.real();
  raise("bad operand type for unary -: '{}'", type_name(value));
}

Value affirm(const Value& value) {
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  if (const auto integer = integer_of(value)) return *integer;
  if (value.is_real()) return value;
  raise("bad operand type for unary +: '{}'", type_name(value));
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::string:
      if (!item.is_string()) {
        raise("'in <string>' requires string as left operand, not {}", type_name(item));
      }
      runtime.bytes(container.string().size());
      return container.string().find(item.string()) != std::string_view::npos;
    case Kind::dict:
      return container.dict().find(runtime, item) != nullptr;
    case Kind::object:
      if (const auto found = container.object().contains(runtime, item)) return *found;
      break;
    default:
      break;
  }
  if (!is_iterable(container)) raise("argument of type '{}' is not iterable", type_name(container));
  const auto iterator = iterate(runtime, container);
  for (Value value; iterator->next(runtime, value);) {
    if (value.same(item) || equal(runtime, value, item)) return true;
  }
  return false;
}

bool compare(Runtime& runtime, Comparison comparison, const Value& a, const Value& b) {
  switch (comparison) {
    case Comparison::equal:
      return equal(runtime, a, b);
    case Comparison::not_equal:
      return !equal(runtime, a, b);
    case Comparison::less:
      return ordered(runtime, Order::less, a, b);
    case Comparison::less_equal:
      return ordered(runtime, Order::less_equal, a, b);
    case Comparison::greater:
      return ordered(runtime, Order::greater, a, b);
    case Comparison::greater_equal:
      return ordered(runtime, Order::greater_equal, a, b);
    case Comparison::in:
      return contains(runtime, b, a);
    case Comparison::not_in:
      return !contains(runtime, b, a);
  }
  return false;
}

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string escape(Runtime& runtime, const Value& value) {
  std::string text = to_string(runtime, value);
  if (value.is_markup()) return text;
  runtime.bytes(text.size() * 5);
  return escape(text);
}

}  // namespace qeval::jinja
