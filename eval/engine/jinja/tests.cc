#include <algorithm>

#include "eval/engine/jinja/filters.h"
#include "eval/engine/jinja/methods.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"

namespace qeval::jinja {
namespace {

bool is_sequence(const Value& value) {
  return value.is_string() || value.is_sequence() || value.is_dict() || value.is_undefined() ||
         value.as<Range>() != nullptr;
}

bool is_callable(const Value& value) {
  return value.is_undefined() || (value.kind() == Kind::object && value.object().callable());
}

bool remainder_is(Runtime& runtime, const Value& value, const Value& divisor, int64_t wanted) {
  return equal(runtime, binary(runtime, Binary::modulo, value, divisor), wanted);
}

bool names_one(const Value& value, bool (*exists)(std::string_view)) {
  require_hashable(value);
  return value.is_string() && exists(value.string());
}

/// A test without arguments, as a function of the value.
struct Test {
  std::string_view name;
  bool (*holds)(Runtime& runtime, const Value& value);
};

constexpr Test kTests[] = {
    {"odd", [](Runtime& r, const Value& v) { return remainder_is(r, v, int64_t{2}, 1); }},
    {"even", [](Runtime& r, const Value& v) { return remainder_is(r, v, int64_t{2}, 0); }},
    {"defined", [](Runtime&, const Value& v) { return !v.is_undefined(); }},
    {"undefined", [](Runtime&, const Value& v) { return v.is_undefined(); }},
    {"filter", [](Runtime&, const Value& v) { return names_one(v, has_filter); }},
    {"test", [](Runtime&, const Value& v) { return names_one(v, has_test); }},
    {"none", [](Runtime&, const Value& v) { return v.is_none(); }},
    {"boolean", [](Runtime&, const Value& v) { return v.is_boolean(); }},
    {"false", [](Runtime&, const Value& v) { return v.is_boolean() && !v.boolean(); }},
    {"true", [](Runtime&, const Value& v) { return v.is_boolean() && v.boolean(); }},
    {"integer", [](Runtime&, const Value& v) { return v.is_integer(); }},
    {"float", [](Runtime&, const Value& v) { return v.is_real(); }},
    {"lower",
     [](Runtime& r, const Value& v) {
       return call_string_method(r, r.text(to_string(r, v)), "islower", {}).boolean();
     }},
    {"upper",
     [](Runtime& r, const Value& v) {
       return call_string_method(r, r.text(to_string(r, v)), "isupper", {}).boolean();
     }},
    {"string", [](Runtime&, const Value& v) { return v.is_string(); }},
    {"mapping", [](Runtime&, const Value& v) { return v.is_dict(); }},
    {"number", [](Runtime&, const Value& v) { return number_of(v).has_value(); }},
    {"sequence", [](Runtime&, const Value& v) { return is_sequence(v); }},
    {"iterable", [](Runtime&, const Value& v) { return is_iterable(v); }},
    {"callable", [](Runtime&, const Value& v) { return is_callable(v); }},
    {"escaped", [](Runtime&, const Value& v) { return v.is_markup(); }},
};

/// A test against one other value: an operator, by all its names.
constexpr std::pair<std::string_view, Comparison> kComparisons[] = {
    {"==", Comparison::equal},         {"eq", Comparison::equal},
    {"equalto", Comparison::equal},    {"!=", Comparison::not_equal},
    {"ne", Comparison::not_equal},     {">", Comparison::greater},
    {"gt", Comparison::greater},       {"greaterthan", Comparison::greater},
    {"ge", Comparison::greater_equal}, {">=", Comparison::greater_equal},
    {"<", Comparison::less},           {"lt", Comparison::less},
    {"lessthan", Comparison::less},    {"<=", Comparison::less_equal},
    {"le", Comparison::less_equal},
};

const Test* find_test(std::string_view name) {
  const auto* found = std::ranges::find(kTests, name, &Test::name);
  return found == std::end(kTests) ? nullptr : found;
}

const Comparison* find_comparison(std::string_view name) {
  const auto* found = std::ranges::find(kComparisons, name, &std::pair<std::string_view, Comparison>::first);
  return found == std::end(kComparisons) ? nullptr : &found->second;
}

}  // namespace

bool has_test(std::string_view name) {
  return find_test(name) != nullptr || find_comparison(name) != nullptr || name == "divisibleby" ||
         name == "sameas" || name == "in";
}

bool apply_test(Runtime& runtime, std::string_view name, const Value& value, const Call& call) {
  if (const Test* test = find_test(name)) {
    bind_arguments(fmt::format("test_{} value", name), value, call);
    return test->holds(runtime, value);
  }
  if (const Comparison* comparison = find_comparison(name)) {
    if (!call.named.empty()) raise("{}() takes no keyword arguments", name);
    if (call.positional.size() != 1)
      raise("{} expected 2 arguments, got {}", name, call.positional.size() + 1);
    return compare(runtime, *comparison, value, call.positional[0]);
  }
  if (name == "divisibleby") {
    return remainder_is(runtime, value, bind_arguments("test_divisibleby value num", value, call)[1], 0);
  }
  if (name == "sameas") return value.same(bind_arguments("test_sameas value other", value, call)[1]);
  if (name == "in") return contains(runtime, bind_arguments("test_in value seq", value, call)[1], value);
  raise("No test named {} found.", repr_of_string(name));
}

}  // namespace qeval::jinja
