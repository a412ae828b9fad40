#pragma once

#include <string_view>

#include "eval/engine/jinja/value.h"

namespace qeval::jinja {

bool has_filter(std::string_view name);
bool has_test(std::string_view name);

/// `value|name(...)`; raises where there is no such filter, or its arguments are not its own.
Value apply_filter(Runtime& runtime, std::string_view name, const Value& value, const Call& call);
/// `value is name(...)`.
bool apply_test(Runtime& runtime, std::string_view name, const Value& value, const Call& call);

}  // namespace qeval::jinja
