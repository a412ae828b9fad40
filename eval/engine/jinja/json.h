#pragma once

#include <nlohmann/json.hpp>

#include "eval/engine/jinja/value.h"

namespace qeval::jinja {

/// A value of parsed JSON as Python's json.loads gives it. An integer beyond 64 bits is refused.
Value from_json(Runtime& runtime, const nlohmann::ordered_json& json);

}  // namespace qeval::jinja
