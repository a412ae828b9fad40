#pragma once

#include "eval/engine/jinja/syntax.h"

namespace qeval::jinja {

/// Python's operators. What two types have no operator for raises in Python's words; integers beyond 64 bits
/// are refused.
Value binary(Runtime& runtime, Binary operation, const Value& a, const Value& b);
Value negate(const Value& value);
Value affirm(const Value& value);
bool compare(Runtime& runtime, Comparison comparison, const Value& a, const Value& b);
/// item in container.
bool contains(Runtime& runtime, const Value& container, const Value& item);

/// & < > ' " as entities; a value that is markup already stays. The result is markup.
std::string escape(Runtime& runtime, const Value& value);
std::string escape(std::string_view text);

}  // namespace qeval::jinja
