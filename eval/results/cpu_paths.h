#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace qeval::eval {

/// Several of them as a field of `environment` has them in results.json: "avx2; portable".
std::string joined(const std::set<std::string>& names);
/// The inverse; "" is none.
std::set<std::string> split(std::string_view names);

/// What to know before scores are believed that were computed by these kernels. Nothing where it was one
/// alone, or in nothing but integers, which are the same in all.
std::optional<std::string> kernels_warning(const std::set<std::string>& cpu_paths, bool integers_only);

}  // namespace qeval::eval
