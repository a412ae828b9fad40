#pragma once

#include <string_view>

namespace qeval {

/// Whether `pattern` covers all of `name`: `*` stands for any text, `?` for one byte.
bool glob_matches(std::string_view pattern, std::string_view name);

}  // namespace qeval
