#include <algorithm>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/format.h"
#include "eval/engine/jinja/methods.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"
#include "eval/engine/jinja/text_search.h"

namespace qeval::jinja {
namespace {

/// One call of a method of a text.
struct Method {
  Runtime& runtime;
  const Value& self;
  std::string_view name;
  const Call& call;

  std::string_view text() const { return self.string(); }
  size_t count() const { return call.positional.size(); }
  const Value& argument(size_t index) const { return call.positional[index]; }
  /// A text like the one the method is of.
  Value result(std::string out) const { return runtime.text(std::move(out), self.is_markup()); }
  /// Another text to put into it: escaped where it is markup.
  std::string inserted(const Value& value) const {
    return self.is_markup() ? escape(runtime, value) : std::string(value.string());
  }

  void accept(size_t least, size_t most) const {
    if (!call.named.empty()) raise("str.{}() takes no keyword arguments", name);
    if (count() >= least && count() <= most) return;
    if (most == 0) raise("str.{}() takes no arguments ({} given)", name, count());
    if (least == 1 && most == 1) raise("str.{}() takes exactly one argument ({} given)", name, count());
    const bool few = count() < least;
    const size_t bound = few ? least : most;
    raise("{} expected at {} {} argument{}, got {}", name, few ? "least" : "most", bound,
          bound == 1 ? "" : "s", count());
  }
};

template <typename Test>
bool every(std::string_view text, Test test) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (!test(c.value)) return false;
    at += c.length;
  }
  return !text.empty();
}

bool has_case(std::string_view text, bool (*wanted)(char32_t), bool (*unwanted)(char32_t)) {
  bool found = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (unwanted(c.value) || is_title(c.value)) return false;
    found = found || wanted(c.value);
    at += c.length;
  }
  return found;
}

bool is_titled(std::string_view text) {
  bool cased = false, found = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at += c.length;
    if (is_upper(c.value) || is_title(c.value)) {
      if (cased) return false;
      cased = found = true;
    } else if (is_lower(c.value)) {
      if (!cased) return false;
      found = true;
    } else {
      cased = false;
    }
  }
  return found;
}

std::optional<bool> test_characters(std::string_view name, std::string_view text) {
  if (name == "isalpha") return every(text, is_alphabetic);
  if (name == "isdecimal") return every(text, is_decimal);
  if (name == "isdigit") return every(text, is_digit);
  if (name == "isnumeric") return every(text, is_numeric);
  if (name == "isalnum")
    return every(text, [](char32_t c) { return is_alphabetic(c) || is_numeric(c) || is_digit(c); });
  if (name == "isspace") return every(text, is_python_space);
  if (name == "isprintable") return text.empty() || every(text, is_printable);
  if (name == "isascii") return text.empty() || every(text, [](char32_t c) { return c < 0x80; });
  if (name == "isidentifier") return is_identifier(text);
  if (name == "islower") return has_case(text, is_lower, is_upper);
  if (name == "isupper") return has_case(text, is_upper, is_lower);
  if (name == "istitle") return is_titled(text);
  return std::nullopt;
}

std::string swapcase(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const std::string_view letter = text.substr(at, c.length);
    out += is_upper(c.value) ? lower(letter) : is_lower(c.value) ? upper(letter) : std::string(letter);
    at += c.length;
  }
  return out;
}

std::optional<std::string> change_case(std::string_view name, std::string_view text) {
  if (name == "upper") return upper(text);
  if (name == "lower") return lower(text);
  if (name == "title") return title(text);
  if (name == "capitalize") return capitalize(text);
  if (name == "swapcase") return swapcase(text);
  if (name == "casefold") return casefold(text);
  return std::nullopt;
}

Value strip_method(const Method& method) {
  method.accept(0, 1);
  const bool left = method.name != "rstrip", right = method.name != "lstrip";
  std::optional<std::string_view> characters;
  if (method.count() == 1 && !method.argument(0).is_none()) {
    if (!method.argument(0).is_string()) {
      raise("{} arg must be None or str, not {}", method.name, type_name(method.argument(0)));
    }
    characters = method.argument(0).string();
  }
  return method.result(std::string(strip_characters(method.runtime, method.text(), characters, left, right)));
}

Value affix_method(const Method& method) {
  method.accept(1, 1);
  if (!method.argument(0).is_string()) {
    raise("{}() argument must be str, not {}", method.name, type_name(method.argument(0)));
  }
  std::string_view text = method.text();
  const std::string_view affix = method.argument(0).string();
  if (method.name == "removeprefix") {
    if (text.starts_with(affix)) text.remove_prefix(affix.size());
  } else if (text.ends_with(affix)) {
    text.remove_suffix(affix.size());
  }
  return method.result(std::string(text));
}

Value replace_method(const Method& method) {
  method.accept(2, 3);
  for (size_t i = 0; i < 2; ++i) {
    if (!method.argument(i).is_string()) {
      raise("replace() argument {} must be str, not {}", i + 1, type_name(method.argument(i)));
    }
  }
  const int64_t most = method.count() == 3 ? require_integer(method.argument(2)) : -1;
  return method.result(replace_all(method.runtime, method.text(), method.argument(0).string(),
                                   method.inserted(method.argument(1)), most));
}

/// The part of a text that the arguments behind the first one select.
Window window_of(const Method& method) {
  std::optional<int64_t> bounds[2];
  for (size_t i = 1; i < method.count(); ++i) {
    if (method.argument(i).is_none()) continue;
    bounds[i - 1] = integer_of(method.argument(i));
    if (!bounds[i - 1]) raise("slice indices must be integers or None or have an __index__ method");
  }
  method.runtime.bytes(method.text().size() / 4);
  return window(method.text(), bounds[0], bounds[1]);
}

Value find_method(const Method& method) {
  if (!method.call.named.empty()) raise("{}() takes no keyword arguments", method.name);
  if (method.count() < 1 || method.count() > 3) {
    raise("{}() takes at {} argument{} ({} given)", method.name, method.count() < 1 ? "least 1" : "most 3",
          method.count() < 1 ? "" : "s", method.count());
  }
  if (!method.argument(0).is_string()) raise("must be str, not {}", type_name(method.argument(0)));
  const std::string_view wanted = method.argument(0).string();
  const Window part = window_of(method);
  method.runtime.bytes(part.text.size());
  if (method.name == "count") return part.outside ? int64_t{0} : count_of(part.text, wanted);
  const bool last = method.name.starts_with('r');
  const size_t at = part.outside ? std::string_view::npos
                    : last       ? part.text.rfind(wanted)
                                 : part.text.find(wanted);
  if (at != std::string_view::npos) {
    return part.characters_before + static_cast<int64_t>(count_code_points(part.text.substr(0, at)));
  }
  if (method.name.ends_with("index")) raise("substring not found");
  return int64_t{-1};
}

Value starts_or_ends(const Method& method) {
  if (!method.call.named.empty()) raise("{}() takes no keyword arguments", method.name);
  if (method.count() < 1 || method.count() > 3) {
    raise("{}() takes at {} argument{} ({} given)", method.name, method.count() < 1 ? "least 1" : "most 3",
          method.count() < 1 ? "" : "s", method.count());
  }
  const Window part = window_of(method);
  const auto matches = [&](const Value& affix) {
    return !part.outside && (method.name == "startswith" ? part.text.starts_with(affix.string())
                                                         : part.text.ends_with(affix.string()));
  };
  const Value& affix = method.argument(0);
  if (affix.is_string()) return matches(affix);
  if (affix.kind() != Kind::tuple) {
    raise("{} first arg must be str or a tuple of str, not {}", method.name, type_name(affix));
  }
  for (const Value& one : affix.list().items) {
    if (!one.is_string()) {
      raise("tuple for {} must only contain str, not {}", method.name, type_name(one));
    }
    if (matches(one)) return true;
  }
  return false;
}

Value justify(const Method& method) {
  method.accept(1, 2);
  NumberFormat format;
  format.width = require_integer(method.argument(0));
  if (method.count() == 2) {
    if (!method.argument(1).is_string()) {
      raise("The fill character must be a unicode character, not {}", type_name(method.argument(1)));
    }
    format.fill = method.argument(1).string();
    if (count_code_points(format.fill) != 1) raise("The fill character must be exactly one character long");
  }
  if (method.name == "center")
    return method.result(center(method.runtime, method.text(), format.width, format.fill));
  format.align = method.name == "ljust" ? '<' : '>';
  return method.result(pad(method.runtime, std::string(method.text()), format, '<', 0));
}

Value zfill(const Method& method) {
  method.accept(1, 1);
  NumberFormat format;
  format.width = require_integer(method.argument(0));
  format.fill.assign(1, '0');
  format.align = '=';
  const bool has_sign = method.text().starts_with('-') || method.text().starts_with('+');
  return method.result(pad(method.runtime, std::string(method.text()), format, '=', has_sign ? 1 : 0));
}

Value expandtabs(const Method& method) {
  const auto arguments = bind_arguments("expandtabs tabsize?", method.call);
  const int64_t size = arguments[0].is_missing() ? 8 : require_integer(arguments[0]);
  Builder out(method.runtime);
  int64_t column = 0;
  for (size_t at = 0; at < method.text().size();) {
    const CodePoint c = code_point_at(method.text(), at);
    if (c.value == '\t') {
      const int64_t spaces = size <= 0 ? 0 : size - column % size;
      out.add(static_cast<size_t>(spaces), " ");
      column += spaces;
    } else {
      out.add(method.text().substr(at, c.length));
      column = c.value == '\n' || c.value == '\r' ? 0 : column + 1;
    }
    at += c.length;
  }
  return method.result(out.take());
}

Value format_map(const Method& method) {
  if (!method.call.named.empty()) raise("format_map() takes no keyword arguments");
  if (method.count() != 1) raise("format_map() takes exactly one argument ({} given)", method.count());
  if (!method.argument(0).is_dict())
    raise("format_map() of a '{}' is not supported", type_name(method.argument(0)));
  Call fields;
  for (const auto& [key, value] : method.argument(0).dict().items()) {
    if (key.is_string()) fields.named.emplace_back(std::string(key.string()), value);
  }
  method.runtime.bytes(fields.named.size() * sizeof(Value));
  return brace_format(method.runtime, method.self, fields);
}

}  // namespace

Value call_string_method(Runtime& runtime, const Value& text, std::string_view name, const Call& call) {
  const Method method{runtime, text, name, call};
  runtime.bytes(text.string().size());
  if (name == "strip" || name == "lstrip" || name == "rstrip") return strip_method(method);
  if (auto parts = call_split_method(runtime, text, name, call)) return *parts;
  if (name == "replace") return replace_method(method);
  if (name == "startswith" || name == "endswith") return starts_or_ends(method);
  if (name == "format") return brace_format(runtime, text, call);
  if (name == "format_map") return format_map(method);
  if (name == "find" || name == "rfind" || name == "index" || name == "rindex" || name == "count") {
    return find_method(method);
  }
  if (name == "removeprefix" || name == "removesuffix") return affix_method(method);
  if (name == "center" || name == "ljust" || name == "rjust") return justify(method);
  if (name == "zfill") return zfill(method);
  if (name == "expandtabs") return expandtabs(method);
  if (name.starts_with("is")) {
    method.accept(0, 0);
    if (const auto answer = test_characters(name, text.string())) return *answer;
  }
  if (auto changed = change_case(name, text.string())) {
    method.accept(0, 0);
    return method.result(std::move(*changed));
  }
  raise("the method {} of a str is not supported", name);
}

}  // namespace qeval::jinja
