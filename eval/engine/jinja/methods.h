#pragma once

#include "eval/engine/jinja/value.h"

namespace qeval::jinja {

/// Whether Python's type of `value` has a method of that name.
bool has_method(const Value& value, std::string_view name);
/// value.name(...) of a str, list, tuple, dict, int or float that has that method. Those that a template
/// cannot use, or that nothing here can do, are refused by name.
Value call_method(Runtime& runtime, const Value& value, std::string_view name, const Call& call);

Value call_string_method(Runtime& runtime, const Value& text, std::string_view name, const Call& call);
/// The methods that take a text apart: split, rsplit, splitlines, partition, rpartition, join.
std::optional<Value> call_split_method(Runtime& runtime, const Value& text, std::string_view name,
                                       const Call& call);

}  // namespace qeval::jinja
