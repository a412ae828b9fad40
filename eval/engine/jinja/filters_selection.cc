#include "eval/engine/jinja/filter_list.h"
#include "eval/engine/jinja/filters.h"
#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

uint16_t depth_of_all(const Value& value, const Call& call) {
  uint16_t out = depth_of(value);
  for (const Value& argument : call.positional) out = std::max(out, depth_of(argument));
  for (const auto& [name, argument] : call.named) out = std::max(out, depth_of(argument));
  return out;
}

/// The name of a filter or test that is given as a value.
std::string_view callable_name(Runtime& runtime, const Value& name, std::string_view what,
                               bool (*exists)(std::string_view)) {
  if (name.is_string() && exists(name.string())) return name.string();
  const std::string shown = to_repr(runtime, name);
  if (name.is_undefined()) {
    raise("No {} named {}. ({}; did you forget to quote the callable name?)", what, shown,
          name.undefined().message);
  }
  raise("No {} named {}.", what, shown);
}

using Transform = std::function<Value(Runtime&, const Value&)>;

Transform prepare_map(Runtime& runtime, Call call) {
  const auto named = [&](std::string_view wanted) -> const Value* {
    for (const auto& [name, value] : call.named) {
      if (name == wanted) return &value;
    }
    return nullptr;
  };
  if (call.positional.empty() && named("attribute") != nullptr) {
    for (const auto& [name, value] : call.named) {
      if (name != "attribute" && name != "default")
        raise("Unexpected keyword argument {}", repr_of_string(name));
    }
    const Value* fallback = named("default");
    return AttributeGetter(runtime, *named("attribute"), fallback == nullptr ? Value() : *fallback);
  }
  if (call.positional.empty()) raise("map requires a filter argument");
  const Value name = call.positional[0];
  call.positional.erase(call.positional.begin());
  return [name, call](Runtime& r, const Value& item) {
    return apply_filter(r, callable_name(r, name, "filter", has_filter), item, call);
  };
}

Value map(Runtime& runtime, const Value& value, const Call& call) {
  return runtime.make<Generator>(
      [value, call, source = std::shared_ptr<Iterator>(),
       transform = Transform()](Runtime& r) mutable -> std::optional<Value> {
        if (source == nullptr) {
          if (!truth(r, value)) return std::nullopt;
          transform = prepare_map(r, call);
          source = iterate(r, value);
        }
        Value item;
        if (!source->next(r, item)) return std::nullopt;
        return transform(r, item);
      },
      depth_of_all(value, call));
}

Transform prepare_selection(Runtime& runtime, Call call, bool by_attribute) {
  Transform get = [](Runtime&, const Value& item) { return item; };
  if (by_attribute) {
    if (call.positional.empty()) raise("Missing parameter for attribute name");
    get = AttributeGetter(runtime, call.positional[0]);
    call.positional.erase(call.positional.begin());
  }
  if (call.positional.empty()) {
    return [get](Runtime& r, const Value& item) -> Value { return truth(r, get(r, item)); };
  }
  const Value name = call.positional[0];
  call.positional.erase(call.positional.begin());
  return [get, name, call](Runtime& r, const Value& item) -> Value {
    return apply_test(r, callable_name(r, name, "test", has_test), get(r, item), call);
  };
}

Value select_or_reject(Runtime& runtime, const Value& value, const Call& call, bool wanted,
                       bool by_attribute) {
  return runtime.make<Generator>(
      [value, call, wanted, by_attribute, source = std::shared_ptr<Iterator>(),
       test = Transform()](Runtime& r) mutable -> std::optional<Value> {
        if (source == nullptr) {
          if (!truth(r, value)) return std::nullopt;
          test = prepare_selection(r, call, by_attribute);
          source = iterate(r, value);
        }
        for (Value item; source->next(r, item);) {
          if (truth(r, test(r, item)) == wanted) return item;
        }
        return std::nullopt;
      },
      depth_of_all(value, call));
}

Value select(Runtime& runtime, const Value& value, const Call& call) {
  return select_or_reject(runtime, value, call, true, false);
}
Value reject(Runtime& runtime, const Value& value, const Call& call) {
  return select_or_reject(runtime, value, call, false, false);
}
Value select_by_attribute(Runtime& runtime, const Value& value, const Call& call) {
  return select_or_reject(runtime, value, call, true, true);
}
Value reject_by_attribute(Runtime& runtime, const Value& value, const Call& call) {
  return select_or_reject(runtime, value, call, false, true);
}

}  // namespace

std::span<const Filter> selection_filters() {
  static constexpr Filter kFilters[] = {
      {"map", map},
      {"select", select},
      {"reject", reject},
      {"selectattr", select_by_attribute},
      {"rejectattr", reject_by_attribute},
  };
  return kFilters;
}

}  // namespace qeval::jinja
