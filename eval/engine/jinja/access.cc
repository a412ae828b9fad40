#include <algorithm>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/methods.h"
#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

Value nothing(Runtime& runtime, const Value& owner, std::string_view name) {
  return runtime.undefined(
      fmt::format("'{}' has no attribute {}", describe_owner(owner), repr_of_string(name)));
}

/// x[key] alone: nullopt where Python raises a TypeError or LookupError.
std::optional<Value> subscript(Runtime& runtime, const Value& value, const Value& key) {
  switch (value.kind()) {
    case Kind::undefined:
      throw TemplateError(value.undefined().message);
    case Kind::dict: {
      if (key.kind() == Kind::list || key.is_dict()) return std::nullopt;
      const Value* found = value.dict().find(runtime, key);
      return found == nullptr ? std::nullopt : std::optional(*found);
    }
    case Kind::object:
      return value.object().has_items() ? value.object().item(runtime, key) : std::nullopt;
    case Kind::list:
    case Kind::tuple: {
      const auto index = integer_of(key);
      const auto& items = value.list().items;
      if (!index) return std::nullopt;
      const int64_t at = *index < 0 ? *index + std::ssize(items) : *index;
      if (at < 0 || at >= std::ssize(items)) return std::nullopt;
      return items[static_cast<size_t>(at)];
    }
    case Kind::string: {
      const auto index = integer_of(key);
      if (!index) return std::nullopt;
      const std::string_view text = value.string();
      runtime.bytes(text.size() / 4);
      const auto length = static_cast<int64_t>(count_code_points(text));
      const int64_t at = *index < 0 ? *index + length : *index;
      if (at < 0 || at >= length) return std::nullopt;
      size_t byte = 0;
      for (int64_t i = 0; i < at; ++i) byte += code_point_at(text, byte).length;
      return runtime.text(std::string(text.substr(byte, code_point_at(text, byte).length)),
                          value.is_markup());
    }
    default:
      return std::nullopt;
  }
}

std::optional<int64_t> bound(const Value& value) {
  if (value.is_missing() || value.is_none()) return std::nullopt;
  const auto integer = integer_of(value);
  if (!integer) raise("slice indices must be integers or None or have an __index__ method");
  return integer;
}

/// Python's slice.indices: which `count` elements, from `start` by `step`.
struct Selection {
  int64_t start = 0, step = 1, count = 0;
};
Selection select_slice(int64_t length, const Value& from, const Value& to, const Value& by) {
  Selection out;
  out.step = bound(by).value_or(1);
  if (out.step == 0) raise("slice step cannot be zero");
  out.step = std::max(out.step, -INT64_MAX);
  const bool back = out.step < 0;
  const auto clip = [&](std::optional<int64_t> index, int64_t otherwise) {
    if (!index) return otherwise;
    if (*index < 0) return std::max(*index + length, back ? int64_t{-1} : int64_t{0});
    return std::min(*index, back ? length - 1 : length);
  };
  out.start = clip(bound(from), back ? length - 1 : 0);
  const int64_t stop = clip(bound(to), back ? -1 : length);
  const int64_t span = back ? out.start - stop : stop - out.start;
  const int64_t stride = back ? -out.step : out.step;
  if (span > 0) out.count = 1 + (span - 1) / stride;
  return out;
}

Value slice_text(Runtime& runtime, const Value& value, const Value& from, const Value& to, const Value& by) {
  const std::string_view text = value.string();
  runtime.bytes(text.size() / 2);
  const auto length = static_cast<int64_t>(count_code_points(text));
  const Selection wanted = select_slice(length, from, to, by);
  if (length == static_cast<int64_t>(text.size()) && wanted.step == 1) {
    return runtime.text(std::string(text.substr(static_cast<size_t>(wanted.count == 0 ? 0 : wanted.start),
                                                static_cast<size_t>(wanted.count))),
                        value.is_markup());
  }
  std::vector<uint32_t> begins;
  runtime.bytes(text.size());
  for (size_t at = 0; at < text.size(); at += code_point_at(text, at).length) {
    begins.push_back(static_cast<uint32_t>(at));
  }
  std::string out;
  for (int64_t i = 0; i < wanted.count; ++i) {
    const size_t at = begins[static_cast<size_t>(wanted.start + i * wanted.step)];
    out += text.substr(at, code_point_at(text, at).length);
  }
  return runtime.text(std::move(out), value.is_markup());
}

}  // namespace

bool is_unsafe(const Value& value, std::string_view name) {
  if (name.starts_with('_')) return true;
  const auto among = [name](std::initializer_list<std::string_view> names) {
    return std::ranges::find(names, name) != names.end();
  };
  if (value.is_dict()) return among({"clear", "pop", "popitem", "setdefault", "update"});
  if (value.kind() == Kind::list) {
    return among({"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
  }
  return false;
}

std::optional<Value> find_attribute(Runtime& runtime, const Value& value, std::string_view name) {
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  if (value.kind() == Kind::object) {
    if (auto found = value.object().attribute(runtime, name)) return found;
  } else if (has_method(value, name)) {
    return runtime.make<Builtin>(
        std::string(name),
        [value, method = std::string(name)](Runtime& r, const Call& call) {
          return call_method(r, value, method, call);
        },
        depth_of(value), "builtin_function_or_method");
  }
  if (value.is_integer() || value.is_boolean()) {
    if (name == "real" || name == "numerator") return Value(*integer_of(value));
    if (name == "imag") return Value(int64_t{0});
    if (name == "denominator") return Value(int64_t{1});
  }
  if (value.is_real() && name == "real") return value;
  if (value.is_real() && name == "imag") return Value(0.0);
  if (value.kind() == Kind::tuple && value.list().type == List::Type::group) {
    if (name == "grouper") return value.list().items[0];
    if (name == "list") return value.list().items[1];
  }
  // What every object has and no template may see.
  for (const std::string_view internal : {"__class__",       "__doc__",
                                          "__dir__",         "__init__",
                                          "__new__",         "__repr__",
                                          "__str__",         "__hash__",
                                          "__eq__",          "__ne__",
                                          "__lt__",          "__le__",
                                          "__gt__",          "__ge__",
                                          "__format__",      "__reduce__",
                                          "__reduce_ex__",   "__getattribute__",
                                          "__setattr__",     "__delattr__",
                                          "__sizeof__",      "__init_subclass__",
                                          "__subclasshook__"}) {
    if (name == internal && (value.as<NamespaceObject>() == nullptr || name == "__class__"))
      return Value::none();
  }
  return std::nullopt;
}

namespace {

Value guarded(Runtime& runtime, const Value& owner, std::string_view name, Value attribute) {
  if (!is_unsafe(owner, name)) return attribute;
  return runtime.undefined(fmt::format("access to attribute {} of '{}' object is unsafe.",
                                       repr_of_string(name), type_name(owner)));
}

}  // namespace

Value get_attribute(Runtime& runtime, const Value& value, std::string_view name) {
  runtime.step();
  if (value.is_dict() && !has_method(value, name)) {  // the common case
    if (const Value* found = value.dict().find(name)) return *found;
  }
  if (auto found = find_attribute(runtime, value, name))
    return guarded(runtime, value, name, std::move(*found));
  if (auto found = subscript(runtime, value, runtime.text(std::string(name)))) return *found;
  return nothing(runtime, value, name);
}

Value get_item(Runtime& runtime, const Value& value, const Value& key) {
  runtime.step();
  if (auto found = subscript(runtime, value, key)) return *found;
  if (!key.is_string()) {
    return runtime.undefined(describe_owner(value) + " has no element " + to_repr(runtime, key));
  }
  if (auto found = find_attribute(runtime, value, key.string())) {
    return guarded(runtime, value, key.string(), std::move(*found));
  }
  return nothing(runtime, value, key.string());
}

Value get_slice(Runtime& runtime, const Value& value, const Value& from, const Value& to, const Value& step) {
  if (value.is_undefined()) throw TemplateError(value.undefined().message);
  if (value.is_string()) return slice_text(runtime, value, from, to, step);
  if (value.is_sequence()) {
    const auto& items = value.list().items;
    const Selection wanted = select_slice(std::ssize(items), from, to, step);
    runtime.bytes_of(wanted.count, sizeof(Value));
    std::vector<Value> out;
    for (int64_t i = 0; i < wanted.count; ++i) {
      out.push_back(items[static_cast<size_t>(wanted.start + i * wanted.step)]);
    }
    return runtime.list(std::move(out), value.kind() == Kind::list ? List::Type::list : List::Type::tuple);
  }
  if (const auto* range = value.as<Range>()) {
    const Selection wanted = select_slice(range->count(), from, to, step);
    const int64_t stride = range->step * wanted.step;
    const int64_t start = range->at(wanted.start);
    return runtime.make<Range>(start, start + wanted.count * stride, stride);
  }
  if (value.is_dict()) raise("unhashable type: 'slice'");
  raise("'{}' object is not subscriptable", type_name(value));
}

Value call_value(Runtime& runtime, const Value& callee, const Call& call) {
  if (callee.is_undefined()) throw TemplateError(callee.undefined().message);
  if (callee.kind() != Kind::object) raise("'{}' object is not callable", type_name(callee));
  const Nested nested(runtime);
  return callee.object().call(runtime, call);
}

}  // namespace qeval::jinja
