#include <charconv>
#include <cmath>

#include "base/characters.h"
#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {
namespace {

/// Marks a container whose repr is under way, so that one that holds itself ends.
class Printing {
 public:
  Printing(Runtime& runtime, const void* container) : runtime_(runtime) {
    for (const void* open : runtime.printing) again_ = again_ || open == container;
    runtime.printing.push_back(container);
  }
  ~Printing() { runtime_.printing.pop_back(); }
  Printing(const Printing&) = delete;
  Printing& operator=(const Printing&) = delete;
  bool again() const { return again_; }

 private:
  Runtime& runtime_;
  bool again_ = false;
};

std::string repr_of_list(Runtime& runtime, const List& list) {
  const bool tuple = list.type != List::Type::list;
  Builder out(runtime);
  out.add(tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.add(", ");
    out.add(to_repr(runtime, list.items[i]));
  }
  if (tuple && list.items.size() == 1) out.add(",");
  out.add(tuple ? ")" : "]");
  return out.take();
}

std::string repr_of_dict(Runtime& runtime, const Dict& dict) {
  const Printing printing(runtime, &dict);
  if (printing.again()) return "{...}";
  Builder out(runtime);
  out.add("{");
  bool first = true;
  for (const auto& [key, value] : dict.items()) {
    if (!first) out.add(", ");
    first = false;
    out.add(to_repr(runtime, key));
    out.add(": ");
    out.add(to_repr(runtime, value));
  }
  out.add("}");
  return out.take();
}

void add_escaped(std::string& out, char32_t c) {
  if (c < 0x100) {
    out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
  } else if (c < 0x10000) {
    out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  } else {
    out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
  }
}

}  // namespace

std::string repr_of_string(std::string_view text, bool ascii) {
  const bool double_quotes =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value == static_cast<char32_t>(quote) || c.value == '\\') {
      out += '\\';
      out += static_cast<char>(c.value);
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (!is_printable(c.value) || (ascii && c.value >= 0x80)) {
      add_escaped(out, c.value);
    } else {
      out += text.substr(at, c.length);
    }
    at += c.length;
  }
  out += quote;
  return out;
}

std::string repr_of_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string scientific(buffer, end);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string fixed(buffer, fixed_end);
  if (fixed.find('.') == std::string::npos) fixed += ".0";
  return fixed;
}

std::string to_repr(Runtime& runtime, const Value& value) {
  const Nested nested(runtime);
  switch (value.kind()) {
    case Kind::missing:
    case Kind::none:
      return "None";
    case Kind::boolean:
      return value.boolean() ? "True" : "False";
    case Kind::integer:
      return std::to_string(value.integer());
    case Kind::real:
      return repr_of_real(value.real());
    case Kind::undefined:
      return "Undefined";
    case Kind::string: {
      runtime.bytes(value.string().size());
      const std::string quoted = repr_of_string(value.string());
      return value.is_markup() ? fmt::format("Markup({})", quoted) : quoted;
    }
    case Kind::list:
    case Kind::tuple:
      return repr_of_list(runtime, value.list());
    case Kind::dict:
      return repr_of_dict(runtime, value.dict());
    case Kind::object:
      return value.object().repr(runtime);
  }
  return "";
}

std::string to_string(Runtime& runtime, const Value& value) {
  if (value.is_string()) {
    runtime.bytes(value.string().size());
    return value.text().bytes;
  }
  return value.is_undefined() ? "" : to_repr(runtime, value);
}

}  // namespace qeval::jinja
