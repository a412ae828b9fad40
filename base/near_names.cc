#include "base/near_names.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace qeval {
namespace {

/// Levenshtein's distance: insertions, deletions and substitutions that make one name the other.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::vector<std::string> near_names(std::string_view wrong, const std::vector<std::string>& names) {
  constexpr size_t kMost = 5;
  constexpr size_t kLongest = 64;  // a longer text is no misspelt name
  std::vector<std::pair<size_t, std::string>> near;
  if (wrong.size() > kLongest) return {};
  for (const std::string& name : names) {
    const size_t distance = edit_distance(wrong, name);
    const bool part = wrong.size() >= 3 && (name.find(wrong) != std::string::npos || wrong.find(name) == 0);
    if (part || distance <= std::max<size_t>(2, wrong.size() / 4)) near.emplace_back(distance, name);
  }
  std::sort(near.begin(), near.end());
  if (near.size() > kMost) near.resize(kMost);
  std::vector<std::string> out;
  out.reserve(near.size());
  for (auto& [distance, name] : near) out.push_back(std::move(name));
  return out;
}

}  // namespace qeval
