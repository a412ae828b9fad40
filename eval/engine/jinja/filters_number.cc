#include <charconv>
#include <cmath>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/filter_list.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"

namespace qeval::jinja {
namespace {

/// A number's text as int() and float() read it: without white space around and with decimals of any script
/// as 0 to 9; underscores stand between digits only. nullopt where it is none.
std::optional<std::string> plain_number(std::string_view text) {
  text = strip(text);
  std::string out;
  bool after_digit = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at += c.length;
    if (c.value == '_') {
      if (!after_digit || at >= text.size()) return std::nullopt;
      const char32_t next = code_point_at(text, at).value;
      if (next == '_' ||
          !(decimal_value(next) >= 0 || (next < 0x80 && std::isalnum(static_cast<int>(next))))) {
        return std::nullopt;
      }
      after_digit = false;
      continue;
    }
    const int decimal = decimal_value(c.value);
    if (decimal >= 0) {
      out += static_cast<char>('0' + decimal);
    } else if (c.value < 0x80) {
      out += static_cast<char>(c.value);
    } else {
      return std::nullopt;
    }
    after_digit = decimal >= 0 || (c.value < 0x80 && std::isalnum(static_cast<int>(c.value)));
  }
  return out;
}

/// int(text, base): nullopt where Python raises a ValueError.
std::optional<int64_t> parse_integer(std::string_view given, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;  // a ValueError, too
  const auto plain = plain_number(given);
  if (!plain) return std::nullopt;
  std::string_view text = *plain;
  bool negative = false;
  if (text.starts_with('+') || text.starts_with('-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const auto prefix = [&](char letter, int64_t of) {
    if ((base != of && base != 0) || text.size() < 2 || text[0] != '0' || (text[1] | 0x20) != letter) return;
    text.remove_prefix(2);
    base = of;
  };
  prefix('x', 16);
  prefix('o', 8);
  prefix('b', 2);
  if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of('0') != std::string_view::npos) {
      return std::nullopt;
    }
    base = 10;
  }
  if (text.empty() || text[0] == '-' || text[0] == '+') return std::nullopt;
  std::string whole(negative ? "-" : "");
  whole += text;
  int64_t out = 0;
  const auto [end, error] =
      std::from_chars(whole.data(), whole.data() + whole.size(), out, static_cast<int>(base));
  if (end != whole.data() + whole.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) {
    raise("the integer {} is beyond 64 bits, which is not supported", printable(whole, 40));
  }
  return error == std::errc() ? std::optional(out) : std::nullopt;
}

/// float(text).
std::optional<double> parse_real(std::string_view given) {
  const auto plain = plain_number(given);
  if (!plain || plain->empty()) return std::nullopt;
  std::string_view text = *plain;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text[0] == '-' || text[0] == '+') return std::nullopt;
  const std::string lowered = lower(text);
  double out = 0;
  if (lowered == "inf" || lowered == "infinity") {
    out = INFINITY;
  } else if (lowered == "nan") {
    out = NAN;
  } else {
    if (lowered.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (end != text.data() + text.size()) return std::nullopt;
    if (error == std::errc::result_out_of_range) out = std::strtod(std::string(text).c_str(), nullptr);
  }
  return negative ? -out : out;
}

/// int(float): nullopt where Python raises (not a number, infinite).
std::optional<int64_t> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) >= 9.223372036854775807e18) {
    raise("the integer of {} is beyond 64 bits, which is not supported", repr_of_real(value));
  }
  return static_cast<int64_t>(value);
}

Value absolute(Runtime&, const Value& value, const Call& call) {
  if (!call.named.empty()) raise("abs() takes no keyword arguments");
  if (!call.positional.empty())
    raise("abs() takes exactly one argument ({} given)", call.positional.size() + 1);
  if (value.is_real()) return std::fabs(value.real());
  const auto integer = integer_of(value);
  if (!integer) raise("bad operand type for abs(): '{}'", type_name(value));
  return *integer < 0 ? negate(*integer) : Value(*integer);
}

Value to_integer(Runtime&, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_int value default? base?", value, call);
  const Value otherwise = arguments[1].is_missing() ? Value(int64_t{0}) : arguments[1];
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  std::optional<int64_t> out = integer_of(value);
  if (value.is_string()) {
    out = parse_integer(value.string(), arguments[2].is_missing() ? 10 : require_integer(arguments[2]));
    if (!out) {
      if (const auto real = parse_real(value.string())) out = truncated(*real);
    }
  } else if (value.is_real()) {
    if (std::isinf(value.real())) raise("cannot convert float infinity to integer");
    out = truncated(value.real());
  }
  return out ? Value(*out) : otherwise;
}

Value to_real(Runtime&, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_float value default?", value, call);
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  const auto out = value.is_string() ? parse_real(value.string()) : number_of(value);
  if (out) return *out;
  return arguments[1].is_missing() ? Value(0.0) : arguments[1];
}

/// round(int, -digits), to the even neighbour where both are as near.
int64_t round_integer(int64_t value, int64_t digits) {
  if (digits > 18) return 0;
  int64_t unit = 1;
  for (int64_t i = 0; i < digits; ++i) unit *= 10;
  int64_t down = value / unit, rest = value % unit;
  if (rest < 0) {
    rest += unit;
    --down;
  }
  const bool up = rest > unit - rest || (rest == unit - rest && (down & 1) != 0);
  return (down + (up ? 1 : 0)) * unit;
}

/// round(float, digits), by the number's exact decimal value.
double round_real(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits < 0) {
    const double unit = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(value / unit) * unit;
  }
  char text[800];
  std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), value);
  return std::strtod(text, nullptr);
}

Value round_filter(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_round value precision? method?", value, call);
  std::string_view method = "common";
  if (!arguments[2].is_missing()) method = arguments[2].is_string() ? arguments[2].string() : "";
  if (method != "common" && method != "ceil" && method != "floor")
    raise("method must be common, ceil or floor");
  if (method == "common") {
    const auto integer = integer_of(value);
    if (!integer && !value.is_real()) raise("type {} doesn't define __round__ method", type_name(value));
    if (!arguments[1].is_missing() && arguments[1].is_none()) {
      return integer ? Value(*integer) : Value(static_cast<int64_t>(std::nearbyint(value.real())));
    }
    const int64_t digits = arguments[1].is_missing() ? 0 : require_integer(arguments[1]);
    if (integer) return digits >= 0 ? *integer : round_integer(*integer, -digits);
    return round_real(value.real(), digits);
  }
  const Value precision = arguments[1].is_missing() ? Value(int64_t{0}) : arguments[1];
  const Value unit = binary(runtime, Binary::power, Value(int64_t{10}), precision);
  const Value scaled = binary(runtime, Binary::multiply, value, unit);
  const auto number = number_of(scaled);
  if (!number) raise("must be real number, not {}", type_name(scaled));
  if (std::isinf(*number)) raise("cannot convert float infinity to integer");
  if (std::isnan(*number)) raise("cannot convert float NaN to integer");
  const auto whole = truncated(method == "ceil" ? std::ceil(*number) : std::floor(*number));
  return binary(runtime, Binary::divide, Value(*whole), unit);
}

Value file_size(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_filesizeformat value binary?", value, call);
  const bool binary_units = !arguments[1].is_missing() && truth(runtime, arguments[1]);
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  const auto bytes = value.is_string() ? parse_real(value.string()) : number_of(value);
  if (!bytes && value.is_string()) {
    raise("could not convert string to float: {}", to_repr(runtime, value));
  }
  if (!bytes) raise("float() argument must be a string or a real number, not '{}'", type_name(value));
  const double base = binary_units ? 1024 : 1000;
  if (*bytes == 1) return runtime.text("1 Byte");
  if (*bytes < base) return runtime.text(fmt::format("{} Bytes", static_cast<int64_t>(*bytes)));
  constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0; i < kPrefixes.size(); ++i) {
    unit *= base;
    if (*bytes >= unit && i + 1 < kPrefixes.size()) continue;
    const char letter = binary_units && i == 0 ? 'K' : kPrefixes[i];
    return runtime.text(fmt::format("{:.1f} {}{}", base * *bytes / unit, letter, binary_units ? "iB" : "B"));
  }
  return Value::none();
}

}  // namespace

std::span<const Filter> number_filters() {
  static constexpr Filter kFilters[] = {
      {"abs", absolute},       {"int", to_integer},           {"float", to_real},
      {"round", round_filter}, {"filesizeformat", file_size},
  };
  return kFilters;
}

}  // namespace qeval::jinja
