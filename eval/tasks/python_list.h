#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::eval {

/// ast.literal_eval of a list of plain strings; nothing where the text is none.
std::optional<std::vector<std::string>> python_list(std::string_view text);

}  // namespace qeval::eval
