#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qeval {

/// At most five of `names` that `wrong` may have meant, nearest first.
std::vector<std::string> near_names(std::string_view wrong, const std::vector<std::string>& names);

}  // namespace qeval
