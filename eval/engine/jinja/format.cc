#include "eval/engine/jinja/format.h"

#include <algorithm>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"

namespace qeval::jinja {
namespace {

constexpr int64_t kWidest = int64_t{1} << 31;

/// The first characters of a text.
std::string_view cut(std::string_view text, int64_t characters) {
  size_t at = 0;
  for (int64_t i = 0; i < characters && at < text.size(); ++i) at += code_point_at(text, at).length;
  return text.substr(0, at);
}

/// A number at `at`, if there is one.
std::optional<int64_t> read_number(std::string_view text, size_t& at) {
  if (at >= text.size() || text[at] < '0' || text[at] > '9') return std::nullopt;
  int64_t out = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    out = out * 10 + (text[at] - '0');
    if (out > kWidest) raise("Too many decimal digits in format string");
  }
  return out;
}

/// "…%s…" % values.
class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Value& format, const Value& values)
      : runtime_(runtime),
        text_(format.string()),
        values_(values),
        markup_(format.is_markup()),
        out_(runtime) {}

  std::string run() {
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      out_.add(text_.substr(at_, percent - at_));
      at_ = percent;
      if (at_ < text_.size()) conversion();
    }
    const bool all_used =
        values_.kind() == Kind::tuple ? used_ >= values_.list().items.size() : used_ > 0 || is_mapping();
    if (!all_used) raise("not all arguments converted during string formatting");
    return out_.take();
  }

 private:
  bool is_mapping() const {
    return values_.kind() != Kind::tuple && !values_.is_string() &&
           (values_.is_dict() || values_.kind() == Kind::list || values_.is_undefined());
  }

  Value next_value() {
    if (values_.kind() == Kind::tuple) {
      if (used_ >= values_.list().items.size()) raise("not enough arguments for format string");
      return values_.list().items[used_++];
    }
    if (used_++ > 0) raise("not enough arguments for format string");
    return values_;
  }

  void conversion() {
    const size_t begin = at_++;
    NumberFormat format;
    Value value;
    if (at_ < text_.size() && text_[at_] == '(') {
      const size_t close = closing();
      const Value key = runtime_.text(std::string(text_.substr(at_ + 1, close - at_ - 1)));
      if (!values_.is_dict()) raise("format requires a mapping");
      const Value* found = values_.dict().find(runtime_, key);
      if (found == nullptr) raise("{}", to_repr(runtime_, key));
      value = *found;
      at_ = close + 1;
    }
    bool zero = false;
    for (; at_ < text_.size() && std::string_view("-+ #0").find(text_[at_]) != std::string_view::npos;
         ++at_) {
      switch (text_[at_]) {
        case '-':
          format.align = '<';
          break;
        case '+':
          format.sign = '+';
          break;
        case ' ':
          if (format.sign != '+') format.sign = ' ';
          break;
        case '#':
          format.alternate = true;
          break;
        default:
          zero = true;
      }
    }
    format.width = star_or_number().value_or(0);
    if (format.width < 0) {
      format.align = '<';
      format.width = -format.width;
    }
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      format.precision = std::max<int64_t>(star_or_number().value_or(0), 0);
    }
    while (at_ < text_.size() && std::string_view("hlL").find(text_[at_]) != std::string_view::npos) ++at_;
    if (at_ >= text_.size()) raise("incomplete format");
    const CodePoint letter = code_point_at(text_, at_);
    at_ += letter.length;
    if (letter.value == '%') {
      out_.add("%");
      return;
    }
    if (std::u32string_view(U"sradiuoxXeEfFgGc").find(letter.value) == std::u32string_view::npos) {
      raise("unsupported format character '{}' (0x{:x}) at index {}",
            text_.substr(at_ - letter.length, letter.length), static_cast<uint32_t>(letter.value),
            count_code_points(text_.substr(0, at_ - letter.length)));
    }
    (void)begin;
    if (value.is_missing()) value = next_value();
    convert(static_cast<char>(letter.value), value, format, zero);
  }

  size_t closing() const {
    int open = 0;
    for (size_t at = at_; at < text_.size(); ++at) {
      if (text_[at] == '(') ++open;
      if (text_[at] == ')' && --open == 0) return at;
    }
    raise("incomplete format key");
  }

  std::optional<int64_t> star_or_number() {
    if (at_ >= text_.size() || text_[at_] != '*') return read_number(text_, at_);
    ++at_;
    const Value value = next_value();
    const auto number = integer_of(value);
    if (!number) raise("* wants int");
    if (*number > kWidest || *number < -kWidest) raise("width too big");
    return number;
  }

  void convert(char letter, const Value& value, NumberFormat& format, bool zero) {
    if (letter == 's' || letter == 'r' || letter == 'a') {
      std::string text = letter == 's' ? to_string(runtime_, value) : to_repr(runtime_, value);
      if (letter == 'a' && value.is_string()) text = repr_of_string(value.string(), true);
      if (markup_ && !(letter == 's' && value.is_markup())) text = escape(text);
      if (format.precision >= 0) text = cut(text, format.precision);
      out_.add(pad(runtime_, std::move(text), format, '>', 0));
      return;
    }
    if (letter == 'c') {
      out_.add(pad(runtime_, character(value), format, '>', 0));
      return;
    }
    if (zero && format.align != '<') {
      format.fill.assign(1, '0');
      format.align = '=';
    }
    if (value.is_undefined()) throw TemplateError(value.undefined().message);
    if (std::string_view("eEfFgG").find(letter) != std::string_view::npos) {
      const auto number = number_of(value);
      if (!number) raise("must be real number, not {}", type_name(value));
      format.type = letter;
      out_.add(format_real(runtime_, *number, format));
      return;
    }
    format.type = letter == 'i' || letter == 'u' ? 'd' : letter;
    std::optional<int64_t> number = integer_of(value);
    if (!number && value.is_real() && format.type == 'd') {
      if (!(std::abs(value.real()) < 9.2e18))
        raise("cannot convert float {} to a 64-bit integer", repr_of_real(value.real()));
      number = static_cast<int64_t>(value.real());
    }
    if (!number && format.type == 'd') {
      raise("%{} format: a real number is required, not {}", letter, type_name(value));
    }
    if (!number) raise("%{} format: an integer is required, not {}", letter, type_name(value));
    out_.add(format_integer(runtime_, *number, format));
  }

  static std::string character(const Value& value) {
    std::string out;
    if (const auto code = integer_of(value)) {
      if (*code < 0 || *code > 0x10FFFF) raise("%c arg not in range(0x110000)");
      append_utf8(out, static_cast<char32_t>(*code));
      return out;
    }
    if (!value.is_string() || count_code_points(value.string()) != 1) raise("%c requires int or char");
    return std::string(value.string());
  }

  Runtime& runtime_;
  std::string_view text_;
  const Value& values_;
  bool markup_;
  Builder out_;
  size_t at_ = 0;
  size_t used_ = 0;
};

NumberFormat read_specification(std::string_view text, const Value& value) {
  NumberFormat out;
  size_t at = 0;
  constexpr std::string_view kAligns = "<>^=";
  if (!text.empty()) {
    const size_t first = code_point_at(text, 0).length;
    if (first < text.size() && kAligns.find(text[first]) != std::string_view::npos) {
      out.fill = text.substr(0, first);
      out.align = text[first];
      at = first + 1;
    } else if (kAligns.find(text[0]) != std::string_view::npos) {
      out.align = text[at++];
    }
  }
  const auto next_is = [&](std::string_view accepted) {
    return at < text.size() && accepted.find(text[at]) != std::string_view::npos;
  };
  if (next_is("+- ")) out.sign = text[at++];
  if (next_is("z")) ++at;
  if (next_is("#")) {
    out.alternate = true;
    ++at;
  }
  if (next_is("0")) {
    if (out.align == '\0') {
      out.fill.assign(1, '0');
      if (!value.is_string()) out.align = '=';
    }
    ++at;
  }
  out.width = read_number(text, at).value_or(0);
  if (next_is(",_")) out.grouping = text[at++];
  if (next_is(".")) {
    ++at;
    const auto precision = read_number(text, at);
    if (!precision) raise("Format specifier missing precision");
    out.precision = *precision;
  }
  if (at < text.size()) out.type = text[at++];
  if (at < text.size()) {
    raise("Invalid format specifier '{}' for object of type '{}'", text, type_name(value));
  }
  return out;
}

std::string format_value(Runtime& runtime, const Value& value, std::string_view specification) {
  if (specification.empty()) return to_string(runtime, value);
  const bool number = value.is_integer() || value.is_boolean() || value.is_real();
  if (!number && !value.is_string()) {
    raise("unsupported format string passed to {}.__format__", type_name(value));
  }
  NumberFormat format = read_specification(specification, value);
  const auto unknown = [&] [[noreturn]] {
    raise("Unknown format code '{}' for object of type '{}'", format.type, type_name(value));
  };
  if (value.is_string()) {
    if (format.type != '\0' && format.type != 's') unknown();
    if (format.sign != '-') raise("Sign not allowed in string format specifier");
    if (format.align == '=') raise("'=' alignment not allowed in string format specifier");
    std::string text(format.precision >= 0 ? cut(value.string(), format.precision) : value.string());
    return pad(runtime, std::move(text), format, '<', 0);
  }
  const bool as_real =
      format.type != '\0' && std::string_view("eEfFgG%").find(format.type) != std::string_view::npos;
  if (value.is_real() || as_real) {
    if (format.type != '\0' && !as_real && format.type != 'n') unknown();
    if (format.type == 'n') format.type = 'g';
    return format_real(runtime, *number_of(value), format);
  }
  if (format.type == 'c') {
    std::string text;
    append_utf8(text, static_cast<char32_t>(std::clamp<int64_t>(*integer_of(value), 0, 0x10FFFF)));
    return pad(runtime, std::move(text), format, '<', 0);
  }
  if (format.type != '\0' && std::string_view("dboxXn").find(format.type) == std::string_view::npos)
    unknown();
  if (format.precision >= 0) raise("Precision not allowed in integer format specifier");
  if (format.type == 'n') format.type = 'd';
  return format_integer(runtime, *integer_of(value), format);
}

/// "…{}…".format(…), whose fields are looked up as in an expression.
class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Call& call, bool markup)
      : runtime_(runtime), call_(call), markup_(markup) {}

  std::string run(std::string_view text, int depth) {
    if (depth > 2) raise("Max string recursion exceeded");
    Builder out(runtime_);
    for (size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (c != '{' && c != '}') {
        const size_t end = std::min(text.find_first_of("{}", at), text.size());
        out.add(text.substr(at, end - at));
        at = end;
      } else if (at + 1 < text.size() && text[at + 1] == c) {
        out.add(text.substr(at, 1));
        at += 2;
      } else if (c == '}') {
        raise("Single '}}' encountered in format string");
      } else {
        out.add(field(text, at, depth));
      }
    }
    return out.take();
  }

 private:
  std::string field(std::string_view text, size_t& at, int depth) {
    size_t end = at + 1;
    if (end >= text.size()) raise("Single '{{' encountered in format string");
    int open = 1;
    size_t colon = std::string_view::npos, bang = std::string_view::npos;
    bool in_brackets = false;
    for (; end < text.size(); ++end) {
      const char c = text[end];
      if (c == '{') ++open;
      if (c == '}' && --open == 0) break;
      if (open != 1 || colon != std::string_view::npos) continue;
      if (c == '[') in_brackets = true;
      if (c == ']') in_brackets = false;
      if (in_brackets) continue;
      if (c == ':') colon = end;
      if (c == '!' && bang == std::string_view::npos) bang = end;
    }
    if (end >= text.size()) raise("expected '}}' before end of string");
    const size_t name_end = std::min({colon, bang, end});
    const std::string_view name = text.substr(at + 1, name_end - at - 1);
    std::string_view conversion;
    if (bang != std::string_view::npos) conversion = text.substr(bang + 1, std::min(colon, end) - bang - 1);
    std::string specification;
    if (colon != std::string_view::npos)
      specification = run(text.substr(colon + 1, end - colon - 1), depth + 1);
    at = end + 1;
    Value value = look_up(name);
    if (conversion == "s") value = runtime_.text(to_string(runtime_, value));
    if (conversion == "r") value = runtime_.text(to_repr(runtime_, value));
    if (conversion == "a") {
      value =
          runtime_.text(value.is_string() ? repr_of_string(value.string(), true) : to_repr(runtime_, value));
    }
    if (!conversion.empty() && conversion != "s" && conversion != "r" && conversion != "a") {
      raise("Unknown conversion specifier {}", conversion);
    }
    std::string out = format_value(runtime_, value, specification);
    return markup_ && !value.is_markup() ? escape(out) : out;
  }

  Value look_up(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, first_end));
    for (size_t at = first_end; at < name.size();) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) raise("Empty attribute in format string");
        value = get_attribute(runtime_, value, name.substr(at + 1, end - at - 1));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == std::string_view::npos) raise("Missing ']' in format string");
        std::string_view key = name.substr(at + 1, end - at - 1);
        if (key.empty()) raise("Empty attribute in format string");
        size_t digits = 0;
        const auto index = read_number(key, digits);
        value = get_item(runtime_, value,
                         index && digits == key.size() ? Value(*index) : runtime_.text(std::string(key)));
        at = end + 1;
      } else {
        raise("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  Value first(std::string_view name) {
    size_t digits = 0;
    auto index = read_number(name, digits);
    if (name.empty()) {
      if (numbered_) raise("cannot switch from manual field specification to automatic field numbering");
      index = next_++;
      automatic_ = true;
    } else if (index && digits == name.size()) {
      if (automatic_) raise("cannot switch from manual field specification to automatic field numbering");
      numbered_ = true;
    } else {
      for (const auto& [key, value] : call_.named) {
        if (key == name) return value;
      }
      raise("{}", repr_of_string(name));  // a KeyError says the key
    }
    if (*index >= std::ssize(call_.positional)) {
      raise("Replacement index {} out of range for positional args tuple", *index);
    }
    return call_.positional[static_cast<size_t>(*index)];
  }

  Runtime& runtime_;
  const Call& call_;
  bool markup_;
  int64_t next_ = 0;
  bool automatic_ = false, numbered_ = false;
};

}  // namespace

Value percent_format(Runtime& runtime, const Value& format, const Value& values) {
  return runtime.text(PercentFormatter(runtime, format, values).run(), format.is_markup());
}

Value brace_format(Runtime& runtime, const Value& format, const Call& call) {
  return runtime.text(BraceFormatter(runtime, call, format.is_markup()).run(format.string(), 0),
                      format.is_markup());
}

}  // namespace qeval::jinja
