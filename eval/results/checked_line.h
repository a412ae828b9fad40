#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace qeval::eval {

/// `object` as one line of JSON without the newline, with a last field "checksum": the first 16 hexadecimal
/// digits of the SHA-256 of all that stands before its comma. Throws Error opening with `where` if a string
/// is not UTF-8.
std::string checked_line(const nlohmann::ordered_json& object, std::string_view where);

/// Parses what checked_line() wrote; throws Error opening with `where` for a checksum that is missing or
/// wrong and for what is no JSON.
nlohmann::ordered_json parse_checked_line(std::string_view line, std::string_view where);

}  // namespace qeval::eval
