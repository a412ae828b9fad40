#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

namespace qeval {

/// Parses JSON from a stranger. Malformed text, a key twice in one object, or objects and arrays nested
/// deeper than `most_nested` (what is done with the value later recurses) is a one-line Error that begins
/// with `where`.
nlohmann::json parse_strict_json(std::string_view text, std::string_view where, size_t most_nested = 32);

/// The same, with keys in the order of the text. An object of such a value is searched from its beginning, so
/// one of more than 100,000 keys is an Error too.
nlohmann::ordered_json parse_ordered_json(std::string_view text, std::string_view where,
                                          size_t most_nested = 64);

}  // namespace qeval
