#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "base/json_object.h"

namespace qeval {

/// Access to what a file may say or leave out (such as model.details): a field that is missing or of another
/// type counts as left out, because nothing but its own line of the report depends on it.

inline std::string text_or_empty(const nlohmann::ordered_json& json, const char* key) {
  const auto* value = find_field(json, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

/// A finite number.
inline std::optional<double> number(const nlohmann::ordered_json& json) {
  if (!json.is_number()) return {};
  const auto value = json.get<double>();
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

inline std::optional<double> number_at(const nlohmann::ordered_json& json, const char* key) {
  const auto* value = find_field(json, key);
  return value == nullptr ? std::nullopt : number(*value);
}

/// A whole number of at least 0 and at most 2^53.
inline std::optional<int64_t> count_at(const nlohmann::ordered_json& json, const char* key) {
  const std::optional<double> value = number_at(json, key);
  if (!value || *value < 0 || *value > 9007199254740992.0 || *value != std::floor(*value)) return {};
  return static_cast<int64_t>(*value);
}

}  // namespace qeval
