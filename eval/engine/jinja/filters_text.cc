#include <algorithm>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/filter_list.h"
#include "eval/engine/jinja/methods.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"
#include "eval/engine/jinja/text_search.h"

namespace qeval::jinja {
namespace {

/// jinja2's soft_str: text stays as it is, markup too.
Value soft_text(Runtime& runtime, const Value& value) {
  return value.is_string() ? value : runtime.text(to_string(runtime, value));
}

/// A filter that is a method of the value's text.
template <typename... Arguments>
Value as_method(Runtime& runtime, const Value& value, std::string_view method, Arguments... arguments) {
  return call_string_method(runtime, soft_text(runtime, value), method, Call{{std::move(arguments)...}, {}});
}

Value upper_filter(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_upper s", value, call);
  return as_method(runtime, value, "upper");
}
Value lower_filter(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_lower s", value, call);
  return as_method(runtime, value, "lower");
}
Value capitalize_filter(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_capitalize s", value, call);
  return as_method(runtime, value, "capitalize");
}
Value trim(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_trim value chars?", value, call);
  return as_method(runtime, value, "strip", arguments[1].is_missing() ? Value::none() : arguments[1]);
}
Value center_filter(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_center value width?", value, call);
  return as_method(runtime, value, "center", arguments[1].is_missing() ? Value(int64_t{80}) : arguments[1]);
}

Value replace(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_replace *eval_ctx s old new count?", value, call);
  const bool all = arguments[3].is_missing() || arguments[3].is_none();
  const std::string text = to_string(runtime, value), old = to_string(runtime, arguments[1]);
  return runtime.text(replace_all(runtime, text, old, to_string(runtime, arguments[2]),
                                  all ? -1 : require_integer(arguments[3])));
}

/// Words begin behind white space and - ( { [ <; the rest of each is lowered.
Value title_filter(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_title s", value, call);
  const std::string text = to_string(runtime, value);
  const auto is_border = [](char32_t c) {
    return is_python_space(c) || std::u32string_view(U"-({[<").find(c) != std::u32string_view::npos;
  };
  Builder out(runtime);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const bool border = is_border(code_point_at(text, at).value);
    while (at < text.size()) {
      const CodePoint c = code_point_at(text, at);
      if (is_border(c.value) != border) break;
      at += c.length;
    }
    const std::string_view word = std::string_view(text).substr(begin, at - begin);
    const size_t first = code_point_at(word, 0).length;
    out.add(upper(word.substr(0, first)));
    out.add(lower(word.substr(first)));
  }
  return runtime.text(out.take());
}

Value indent(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_indent s width? first? blank?", value, call);
  std::string indention;
  if (arguments[1].is_missing()) {
    indention = "    ";
  } else if (arguments[1].is_string()) {
    indention = arguments[1].string();
  } else {
    const int64_t width = std::max<int64_t>(require_integer(arguments[1]), 0);
    runtime.bytes_of(width, 1);
    indention.assign(static_cast<size_t>(width), ' ');
  }
  const auto flag = [&](size_t index) {
    return !arguments[index].is_missing() && truth(runtime, arguments[index]);
  };
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  if (!value.is_string()) {
    if (value.kind() == Kind::list) raise("'list' object has no attribute 'splitlines'");
    if (value.kind() == Kind::tuple) raise("can only concatenate tuple (not \"str\") to tuple");
    raise("unsupported operand type(s) for +=: '{}' and 'str'", type_name(value));
  }
  const std::string text = std::string(value.string()) + "\n";
  const auto lines = split_lines(runtime, text, false);
  Builder out(runtime);
  if (flag(2)) out.add(indention);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out.add("\n");
      if (flag(3) || !lines[i].empty()) out.add(indention);
    }
    out.add(lines[i]);
  }
  return runtime.text(out.take(), value.is_markup());
}

Value truncate(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_truncate *env s length? killwords? end? leeway?", value, call);
  const int64_t length = arguments[1].is_missing() ? 255 : require_integer(arguments[1]);
  const std::string end = arguments[3].is_missing() ? "..." : to_string(runtime, arguments[3]);
  const bool default_leeway = arguments[4].is_missing() || arguments[4].is_none();
  const int64_t leeway = default_leeway ? 5 : require_integer(arguments[4]);
  const auto end_length = static_cast<int64_t>(count_code_points(end));
  if (length < end_length) raise("expected length >= {}, got {}", end_length, length);
  if (leeway < 0) raise("expected leeway >= 0, got {}", leeway);
  if (length_of(runtime, value) <= length + leeway) return value;
  const Value kept = get_slice(runtime, value, Value(), length - end_length, Value());
  if (!kept.is_string()) raise("'{}' object has no attribute 'rsplit'", type_name(kept));
  std::string_view text = kept.string();
  if (arguments[2].is_missing() || !truth(runtime, arguments[2])) {
    text = text.substr(0, std::min(text.rfind(' '), text.size()));
  }
  return runtime.text(std::string(text) + end);
}

Value word_count(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_wordcount s", value, call);
  const std::string text = to_string(runtime, value);
  int64_t count = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool word = is_word(c.value);
    count += word && !inside;
    inside = word;
    at += c.length;
  }
  return count;
}

Value format_filter(Runtime& runtime, const Value& value, const Call& call) {
  if (!call.positional.empty() && !call.named.empty()) {
    raise("can't handle positional and keyword arguments at the same time");
  }
  Value values = runtime.tuple(call.positional);
  if (!call.named.empty()) {
    Dict named;
    for (const auto& [name, argument] : call.named) named.set(runtime, runtime.text(name), argument);
    values = runtime.dict(std::move(named));
  }
  return binary(runtime, Binary::modulo, soft_text(runtime, value), values);
}

std::string quote(std::string_view text, bool in_query) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && !in_query);
    if (plain) {
      out += c;
    } else if (c == ' ' && in_query) {
      out += '+';
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Value url_encode(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_urlencode value", value, call);
  if (value.is_string() || !is_iterable(value)) {
    const std::string text = to_string(runtime, value);
    runtime.bytes(text.size() * 3);
    return runtime.text(quote(text, false));
  }
  Builder out(runtime);
  const auto add = [&](const Value& key, const Value& item) {
    if (!out.str().empty()) out.add("&");
    out.add(quote(to_string(runtime, key), true));
    out.add("=");
    out.add(quote(to_string(runtime, item), true));
  };
  if (value.is_dict()) {
    for (const auto& [key, item] : value.dict().items()) add(key, item);
    return runtime.text(out.take());
  }
  for (const Value& pair : items_of(runtime, value)) {
    if (!is_iterable(pair)) raise("cannot unpack non-iterable {} object", type_name(pair));
    const std::vector<Value> both = items_of(runtime, pair);
    if (both.size() < 2) raise("not enough values to unpack (expected 2, got {})", both.size());
    if (both.size() > 2) raise("too many values to unpack (expected 2)");
    add(both[0], both[1]);
  }
  return runtime.text(out.take());
}

}  // namespace

std::span<const Filter> text_filters() {
  static constexpr Filter kFilters[] = {
      {"upper", upper_filter},
      {"lower", lower_filter},
      {"capitalize", capitalize_filter},
      {"trim", trim},
      {"center", center_filter},
      {"replace", replace},
      {"title", title_filter},
      {"indent", indent},
      {"truncate", truncate},
      {"format", format_filter},
      {"wordcount", word_count},
      {"urlencode", url_encode},
  };
  return kFilters;
}

}  // namespace qeval::jinja
