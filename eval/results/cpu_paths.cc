#include "eval/results/cpu_paths.h"

#include <algorithm>

#include <fmt/ranges.h>

namespace qeval::eval {
namespace {

constexpr std::string_view kBetween = "; ";

}  // namespace

std::string joined(const std::set<std::string>& names) {
  return fmt::format("{}", fmt::join(names, kBetween));
}

std::set<std::string> split(std::string_view names) {
  std::set<std::string> out;
  while (!names.empty()) {
    const size_t end = std::min(names.find(kBetween), names.size());
    out.emplace(names.substr(0, end));
    names.remove_prefix(std::min(end + kBetween.size(), names.size()));
  }
  return out;
}

std::optional<std::string> kernels_warning(const std::set<std::string>& cpu_paths, bool integers_only) {
  if (cpu_paths.size() < 2 || integers_only) return {};
  return fmt::format(
      "the documents are computed by different kernels ({}): floating-point scores may differ in their last "
      "digits from those of one machine",
      joined(cpu_paths));
}

}  // namespace qeval::eval
