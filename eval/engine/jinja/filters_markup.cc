#include <algorithm>
#include <charconv>

#include "base/characters.h"
#include "eval/engine/jinja/filter_list.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"
#include "eval/engine/jinja/text_search.h"

namespace qeval::jinja {
namespace {

Value escape_filter(Runtime& runtime, const Value& value, const Call& call) {
  if (!call.positional.empty() || !call.named.empty()) {
    raise("escape() takes exactly one argument ({} given)", call.positional.size() + call.named.size() + 1);
  }
  return runtime.text(escape(runtime, value), true);
}

Value force_escape(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_forceescape value", value, call);
  return runtime.text(escape(to_string(runtime, value)), true);
}

Value mark_safe(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_mark_safe value", value, call);
  return runtime.text(to_string(runtime, value), true);
}

/// The character that the reference `&…;` stands for; nullopt where it is not one.
std::optional<std::string> entity(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kNamed[] = {
      {"amp", "&"}, {"lt", "<"}, {"gt", ">"}, {"quot", "\""}, {"apos", "'"}, {"nbsp", "\u00A0"}};
  for (const auto& [known, character] : kNamed) {
    if (name == known) return std::string(character);
  }
  if (!name.starts_with('#')) {
    if (!name.empty() &&
        std::ranges::all_of(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)); })) {
      raise(
          "striptags of the reference &{}; is not supported; accepted: amp, lt, gt, quot, apos, nbsp and "
          "numbers",
          name);
    }
    return std::nullopt;
  }
  name.remove_prefix(1);
  const bool hexadecimal = name.starts_with('x') || name.starts_with('X');
  if (hexadecimal) name.remove_prefix(1);
  uint32_t code = 0;
  const auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), code, hexadecimal ? 16 : 10);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  std::string out;
  const bool valid = code != 0 && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
  append_utf8(out, valid ? static_cast<char32_t>(code) : U'\uFFFD');
  return out;
}

std::string unescape(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text[at] == '&' ? text.find(';', at) : std::string_view::npos;
    if (end != std::string_view::npos && end - at < 34) {
      if (const auto character = entity(text.substr(at + 1, end - at - 1))) {
        out += *character;
        at = end + 1;
        continue;
      }
    }
    out += text[at++];
  }
  return out;
}

Value strip_tags(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_striptags value", value, call);
  const std::string all = to_string(runtime, value);
  std::string text;
  size_t at = 0;
  for (size_t tag; (tag = all.find('<', at)) != std::string::npos;) {
    const bool comment = all.compare(tag, 4, "<!--") == 0;
    const size_t end = comment ? all.find("-->", tag + 4) : all.find('>', tag);
    if (end == std::string::npos) break;
    text += all.substr(at, tag - at);
    at = end + (comment ? 3 : 1);
  }
  text += all.substr(at);
  std::string words;
  for (const std::string_view word : split(runtime, text, std::nullopt, -1)) {
    if (!words.empty()) words += ' ';
    words += word;
  }
  return runtime.text(unescape(words));
}

Value xml_attributes(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_xmlattr *eval_ctx d autospace?", value, call);
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  if (!value.is_dict()) raise("'{}' object has no attribute 'items'", type_name(value));
  Builder out(runtime);
  const bool space = arguments[1].is_missing() || truth(runtime, arguments[1]);
  for (const auto& [key, item] : value.dict().items()) {
    if (item.is_none() || item.is_undefined()) continue;
    if (!key.is_string()) raise("expected string or bytes-like object, got '{}'", type_name(key));
    if (key.string().find_first_of(" \t\n\r\f\v/>=") != std::string_view::npos) {
      raise("Invalid character in attribute name: {}", to_repr(runtime, key));
    }
    if (space || !out.str().empty()) out.add(" ");
    out.add(escape(runtime, key));
    out.add("=\"");
    out.add(escape(runtime, item));
    out.add("\"");
  }
  return runtime.text(out.take());
}

}  // namespace

std::span<const Filter> markup_filters() {
  static constexpr Filter kFilters[] = {
      {"e", escape_filter}, {"escape", escape_filter}, {"forceescape", force_escape},
      {"safe", mark_safe},  {"striptags", strip_tags}, {"xmlattr", xml_attributes},
  };
  return kFilters;
}

}  // namespace qeval::jinja
