#pragma once

#include <cstdint>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace qeval::python {

/// A whole number that T can hold, where `get` would make another of what is none. UsageError naming `what`.
template <typename T>
T whole_number(const nlohmann::ordered_json& value, const char* what) {
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<T>::max())
                        : value.is_number_integer() && std::numeric_limits<T>::is_signed;
  if (!fits)
    throw UsageError(fmt::format("{}: {}; accepted: whole numbers from {} to {}", what,
                                 printable(value.dump(), 60), std::numeric_limits<T>::min(),
                                 std::numeric_limits<T>::max()));
  return value.get<T>();
}

/// A number; UsageError naming `what` for what is none.
inline double real_number(const nlohmann::ordered_json& value, const char* what) {
  if (!value.is_number())
    throw UsageError(fmt::format("{}: {}; a number is expected", what, printable(value.dump(), 60)));
  return value.get<double>();
}

}  // namespace qeval::python
