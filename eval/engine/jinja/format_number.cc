#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/unicode.h"
#include "eval/engine/jinja/format.h"
#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {
namespace {

constexpr int64_t kMostDigits = 4096;

/// Puts a separator between groups of digits, from the right.
std::string grouped(std::string_view digits, char separator, size_t group) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % group == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string sign_text(bool negative, char sign) {
  if (negative) return "-";
  return sign == '-' ? "" : std::string(1, sign);
}

}  // namespace

std::string pad(Runtime& runtime, std::string text, const NumberFormat& format, char default_align,
                size_t digits_at) {
  const auto length = static_cast<int64_t>(count_code_points(text));
  if (format.width <= length) return text;
  const auto missing = static_cast<size_t>(format.width - length);
  runtime.bytes_of(format.width, static_cast<int64_t>(format.fill.size()));
  const auto fill = [&](size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += format.fill;
    return out;
  };
  switch (format.align == '\0' ? default_align : format.align) {
    case '<':
      return text + fill(missing);
    case '^':
      return fill(missing / 2) + text + fill(missing - missing / 2);
    case '=':
      return text.substr(0, digits_at) + fill(missing) + text.substr(digits_at);
    default:
      return fill(missing) + text;
  }
}

std::string format_integer(Runtime& runtime, int64_t value, const NumberFormat& format) {
  const uint64_t magnitude = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits, prefix;
  switch (format.type) {
    case 'x':
      digits = fmt::format("{:x}", magnitude);
      prefix = "0x";
      break;
    case 'X':
      digits = fmt::format("{:X}", magnitude);
      prefix = "0X";
      break;
    case 'o':
      digits = fmt::format("{:o}", magnitude);
      prefix = "0o";
      break;
    case 'b':
      digits = fmt::format("{:b}", magnitude);
      prefix = "0b";
      break;
    default:
      digits = std::to_string(magnitude);
  }
  if (format.precision > static_cast<int64_t>(digits.size())) {  // %.5d
    if (format.precision > kMostDigits)
      raise("a precision of {}: more than {} is not supported", format.precision, kMostDigits);
    digits.insert(0, static_cast<size_t>(format.precision) - digits.size(), '0');
  }
  if (format.grouping != '\0') {
    const bool decimal = format.type == '\0' || format.type == 'd';
    digits = grouped(digits, format.grouping, decimal ? 3 : 4);
  }
  const std::string front = sign_text(value < 0, format.sign) + (format.alternate ? prefix : "");
  return pad(runtime, front + digits, format, '>', front.size());
}

std::string format_real(Runtime& runtime, double value, const NumberFormat& format) {
  if (format.precision > kMostDigits) {
    raise("a precision of {}: more than {} is not supported", format.precision, kMostDigits);
  }
  char type = format.type;
  const bool percent = type == '%';
  const bool negative = std::signbit(value) && !std::isnan(value);
  double magnitude = std::fabs(value);
  if (percent) {
    magnitude *= 100;
    type = 'f';
  }
  const int precision = static_cast<int>(format.precision < 0 ? 6 : format.precision);
  std::string digits;
  if (!std::isfinite(magnitude)) {
    digits = std::isnan(magnitude) ? "nan" : "inf";
    if (type == 'F' || type == 'E' || type == 'G') digits = std::isnan(magnitude) ? "NAN" : "INF";
  } else if (type == '\0' && format.precision < 0) {
    digits = repr_of_real(magnitude);
  } else if (type == '\0') {  // as g, but with a digit behind the point where there is no exponent
    digits = repr_of_real(magnitude);
    char general[64];
    std::snprintf(general, sizeof general, "%.*g", std::clamp(precision, 1, 40), magnitude);
    digits = general;
    const bool exponent = digits.find('e') != std::string::npos;
    if (!exponent && digits.find('.') == std::string::npos) {
      if (static_cast<int>(digits.size()) < std::max(precision, 1)) {
        digits += ".0";
      } else {  // an exponent one digit earlier than g
        char scientific[64];
        std::snprintf(scientific, sizeof scientific, "%.*e", std::max(precision, 1) - 1, magnitude);
        digits = scientific;
      }
    }
  } else {
    const std::string pattern = std::string("%") + (format.alternate ? "#" : "") + ".*" + type;
    std::vector<char> buffer(static_cast<size_t>(precision) + 400);
    const int size = std::snprintf(buffer.data(), buffer.size(), pattern.c_str(), precision, magnitude);
    digits.assign(buffer.data(), static_cast<size_t>(size));
  }
  if (format.grouping != '\0') {
    const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
    digits = grouped(std::string_view(digits).substr(0, whole), format.grouping, 3) + digits.substr(whole);
  }
  if (percent) digits += '%';
  const std::string front = sign_text(negative, format.sign);
  return pad(runtime, front + digits, format, '>', front.size());
}

}  // namespace qeval::jinja
