#include "eval/engine/jinja/filters.h"

#include <algorithm>

#include "eval/engine/jinja/filter_list.h"
#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

Value apply_default(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_default value default_value? boolean?", value, call);
  const bool boolean = !arguments[2].is_missing() && truth(runtime, arguments[2]);
  if (!value.is_undefined() && (!boolean || truth(runtime, value))) return value;
  return arguments[1].is_missing() ? runtime.text("") : arguments[1];
}

Value length(Runtime& runtime, const Value& value, const Call& call) {
  if (!call.named.empty()) raise("len() takes no keyword arguments");
  if (!call.positional.empty())
    raise("len() takes exactly one argument ({} given)", call.positional.size() + 1);
  return length_of(runtime, value);
}

Value attribute(Runtime& runtime, const Value& value, const Call& call) {
  const auto arguments = bind_arguments("do_attr *environment obj name", value, call);
  if (!arguments[1].is_string()) raise("attribute name must be string, not '{}'", type_name(arguments[1]));
  const std::string_view name = arguments[1].string();
  if (value.is_undefined() || find_attribute(runtime, value, name))
    return get_attribute(runtime, value, name);
  return runtime.undefined(
      fmt::format("'{}' has no attribute {}", describe_owner(value), repr_of_string(name)));
}

Value to_text(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("soft_str s", value, call);
  return value.is_string() ? value : runtime.text(to_string(runtime, value));
}

Value pretty(Runtime& runtime, const Value& value, const Call& call) {
  bind_arguments("do_pprint value", value, call);
  const std::string text = to_repr(runtime, value);
  if (text.size() > 80 || value.is_dict())
    raise("pprint of a dict, or of more than one line, is not supported");
  return runtime.text(text);
}

constexpr Filter kFilters[] = {
    {"default", apply_default}, {"d", apply_default}, {"length", length}, {"count", length},
    {"attr", attribute},        {"string", to_text},  {"pprint", pretty}, {"tojson", tojson},
};
/// Those of jinja2 that nothing here can do, or that are random.
constexpr std::string_view kUnsupported[] = {"random", "urlize", "wordwrap"};

const Filter* find(std::string_view name) {
  const auto in = [name](std::span<const Filter> filters) -> const Filter* {
    const auto found = std::ranges::find(filters, name, &Filter::name);
    return found == filters.end() ? nullptr : &*found;
  };
  for (const auto filters : {std::span<const Filter>(kFilters), text_filters(), sequence_filters(),
                             selection_filters(), number_filters(), markup_filters()}) {
    if (const Filter* found = in(filters)) return found;
  }
  return nullptr;
}

}  // namespace

bool has_filter(std::string_view name) {
  return find(name) != nullptr || std::ranges::find(kUnsupported, name) != std::end(kUnsupported);
}

Value apply_filter(Runtime& runtime, std::string_view name, const Value& value, const Call& call) {
  const Filter* filter = find(name);
  if (filter != nullptr) return filter->apply(runtime, value, call);
  if (has_filter(name)) raise("the filter {} is not supported", name);
  raise("No filter named {} found.", repr_of_string(name));
}

}  // namespace qeval::jinja
