#include "eval/engine/jinja/json.h"

#include <cmath>

#include "base/characters.h"
#include "eval/engine/jinja/filter_list.h"
#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

/// Python's json.dumps with the options that transformers gives the filter.
class Writer {
 public:
  Writer(Runtime& runtime, const std::vector<Value>& options) : runtime_(runtime), out_(runtime) {
    ascii_ = !options[1].is_missing() && truth(runtime, options[1]);
    sort_ = !options[4].is_missing() && truth(runtime, options[4]);
    const Value& indent = options[2];
    if (!indent.is_missing() && !indent.is_none()) {
      indented_ = true;
      if (indent.is_string()) {
        indent_ = indent.string();
      } else {
        const int64_t width = std::max<int64_t>(require_indent(indent), 0);
        runtime.bytes_of(width, 1);
        indent_.assign(static_cast<size_t>(width), ' ');
      }
      between_ = ",";
    }
    if (!options[3].is_missing() && !options[3].is_none()) separators(options[3]);
  }

  std::string run(const Value& value) {
    write(value, 0);
    return out_.take();
  }

 private:
  int64_t require_indent(const Value& indent) {
    const auto integer = integer_of(indent);
    if (!integer) raise("can't multiply sequence by non-int of type '{}'", type_name(indent));
    return *integer;
  }

  void separators(const Value& value) {
    if (!is_iterable(value)) raise("cannot unpack non-iterable {} object", type_name(value));
    const std::vector<Value> both = items_of(runtime_, value);
    if (both.size() < 2) raise("not enough values to unpack (expected 2, got {})", both.size());
    if (both.size() > 2) raise("too many values to unpack (expected 2)");
    for (const Value& one : both) {
      if (!one.is_string()) raise("make_encoder() separators must be str, not {}", type_name(one));
    }
    between_ = both[0].string();
    behind_key_ = both[1].string();
  }

  void quoted(std::string_view text) {
    runtime_.bytes(text.size());
    std::string out = "\"";
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = code_point_at(text, at);
      constexpr std::string_view kSpecial = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
      const size_t special =
          c.value < 0x80 ? kSpecial.find(static_cast<char>(c.value)) : std::string_view::npos;
      if (special != std::string_view::npos) {
        out += '\\';
        out += kLetters[special];
      } else if (c.value < 0x20 || (ascii_ && c.value >= 0x7F && c.value < 0x10000)) {
        out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c.value));
      } else if (ascii_ && c.value >= 0x10000) {
        const auto rest = static_cast<uint32_t>(c.value) - 0x10000;
        out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
      } else {
        out += text.substr(at, c.length);
      }
      at += c.length;
    }
    out_.add(out + "\"");
  }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return repr_of_real(value);
  }

  void line(int level) {
    if (!indented_) return;
    out_.add("\n");
    out_.add(static_cast<size_t>(level), indent_);
  }

  void write_key(const Value& key) {
    switch (key.kind()) {
      case Kind::string:
        return quoted(key.string());
      case Kind::boolean:
        return out_.add(key.boolean() ? "\"true\"" : "\"false\"");
      case Kind::none:
        return out_.add("\"null\"");
      case Kind::integer:
        return out_.add("\"" + std::to_string(key.integer()) + "\"");
      case Kind::real:
        return out_.add("\"" + number(key.real()) + "\"");
      default:
        raise("keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  void write_dict(const Dict& dict, int level) {
    if (dict.items().empty()) return out_.add("{}");
    std::vector<Value> keys, order;
    for (size_t i = 0; i < dict.items().size(); ++i) {
      keys.push_back(dict.items()[i].first);
      order.push_back(static_cast<int64_t>(i));
    }
    if (sort_) order = sorted(runtime_, order, keys, false);
    out_.add("{");
    bool first = true;
    for (const Value& index : order) {
      const auto& [key, value] = dict.items()[static_cast<size_t>(index.integer())];
      if (!first) out_.add(between_);
      first = false;
      line(level + 1);
      write_key(key);
      out_.add(behind_key_);
      write(value, level + 1);
    }
    line(level);
    out_.add("}");
  }

  void write_list(const List& list, int level) {
    if (list.items.empty()) return out_.add("[]");
    out_.add("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.add(between_);
      line(level + 1);
      write(list.items[i], level + 1);
    }
    line(level);
    out_.add("]");
  }

  void write(const Value& value, int level) {
    const Nested nested(runtime_);
    switch (value.kind()) {
      case Kind::none:
        return out_.add("null");
      case Kind::boolean:
        return out_.add(value.boolean() ? "true" : "false");
      case Kind::integer:
        return out_.add(std::to_string(value.integer()));
      case Kind::real:
        return out_.add(number(value.real()));
      case Kind::string:
        return quoted(value.string());
      case Kind::list:
      case Kind::tuple:
        return write_list(value.list(), level);
      case Kind::dict:
        return write_dict(value.dict(), level);
      default:
        raise("Object of type {} is not JSON serializable", type_name(value));
    }
  }

  Runtime& runtime_;
  Builder out_;
  bool ascii_ = false, sort_ = false, indented_ = false;
  std::string indent_, between_ = ", ", behind_key_ = ": ";
};

}  // namespace

Value tojson(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments(
      "_cached_compile_jinja_template.<locals>.tojson x ensure_ascii? indent? separators? sort_keys?", value,
      call);
  return runtime.text(Writer(runtime, arguments).run(value));
}

Value from_json(Runtime& runtime, const nlohmann::ordered_json& json) {
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::boolean:
      return json.get<bool>();
    case Type::number_integer:
      return json.get<int64_t>();
    case Type::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        raise("the integer {} is beyond 64 bits with a sign, which is not supported", json.get<uint64_t>());
      }
      return json.get<int64_t>();
    case Type::number_float:
      return json.get<double>();
    case Type::string:
      return runtime.text(json.get<std::string>());
    case Type::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(from_json(runtime, item));
      return runtime.list(std::move(items));
    }
    case Type::object: {
      Dict dict;
      for (const auto& [key, value] : json.items())
        dict.set(runtime, runtime.text(key), from_json(runtime, value));
      return runtime.dict(std::move(dict));
    }
    default:
      return Value::none();
  }
}

}  // namespace qeval::jinja
