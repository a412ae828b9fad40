#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace qeval::model {

/// Parses JSON from a stranger: malformed text, a key twice in one object or nesting deeper than 32 is a
/// one-line Error that begins with `where`.
nlohmann::json parse_strict_json(std::string_view text, const std::string& where);

}  // namespace qeval::model
