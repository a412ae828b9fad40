#include "eval/tasks/number_words.h"

#include <algorithm>
#include <map>
#include <span>
#include <vector>

#include "base/unicode.h"

namespace qeval::eval {
namespace {

const std::map<std::string, int64_t, std::less<>>& numbers() {
  static const std::map<std::string, int64_t, std::less<>> all = {
      {"zero", 0},      {"one", 1},         {"two", 2},           {"three", 3},
      {"four", 4},      {"five", 5},        {"six", 6},           {"seven", 7},
      {"eight", 8},     {"nine", 9},        {"ten", 10},          {"eleven", 11},
      {"twelve", 12},   {"thirteen", 13},   {"fourteen", 14},     {"fifteen", 15},
      {"sixteen", 16},  {"seventeen", 17},  {"eighteen", 18},     {"nineteen", 19},
      {"twenty", 20},   {"thirty", 30},     {"forty", 40},        {"fifty", 50},
      {"sixty", 60},    {"seventy", 70},    {"eighty", 80},       {"ninety", 90},
      {"hundred", 100}, {"thousand", 1000}, {"million", 1000000}, {"billion", 1000000000}};
  return all;
}

/// word2number's number_formation; nothing of no word.
std::optional<int64_t> below_thousand(std::span<const int64_t> n) {
  if (n.empty()) return {};
  if (n.size() == 4) return n[0] * n[1] + n[2] + n[3];
  if (n.size() == 3) return n[0] * n[1] + n[2];
  if (n.size() == 2) return n[0] == 100 || n[1] == 100 ? n[0] * n[1] : n[0] + n[1];
  return n[0];
}

}  // namespace

const PythonPattern& number_words_pattern() {
  static const PythonPattern pattern(
      "((?:(?:zero|one|two|three|four|five|(?:twen|thir|for|fif|six|seven|nine)(?|teen|ty)|eight(?:|een|y)|"
      "ten|eleven|"
      "twelve|fourteen|hundred|thousand|(?:m|b|tr)illion)(?:zero|one|two|three|four|five|(?:twen|thir|for|"
      "fif|six|"
      "seven|nine)(?:|teen|ty)|eight(?|een|y)|ten|eleven|twelve|fourteen|hundred|thousand|(?:m|b|tr)illion|[^"
      "\\S\r\n]|"
      ",|and|&)+)?(?:zero|one|two|three|four|five|(?:twen|thir|for|fif|six|seven|nine)(?|teen|ty)|eight(?|"
      "een|y)|ten|"
      "eleven|twelve|fourteen|hundred|thousand|(?:m|b|tr)illion))");
  return pattern;
}

std::optional<std::string> number_of_words(std::string_view words) {
  static const PythonPattern word("\\S+");
  std::string plain = lower(words);
  std::ranges::replace(plain, '-', ' ');
  std::vector<int64_t> n;
  for (const auto& match : word.matches(plain)) {
    const auto found = numbers().find(match.groups[0]);
    if (found != numbers().end()) n.push_back(found->second);
  }
  if (n.empty()) return {};
  const auto place = [&](int64_t value) {
    const auto found = std::ranges::find(n, value);
    return found == n.end() ? ptrdiff_t{-1} : found - n.begin();
  };
  for (const int64_t value : {1000, 1000000, 1000000000}) {
    if (std::ranges::count(n, value) > 1) return {};
  }
  const ptrdiff_t billion = place(1000000000), million = place(1000000), thousand = place(1000);
  if ((thousand >= 0 && (thousand < million || thousand < billion)) || (million >= 0 && million < billion))
    return {};
  if (n.size() == 1) return std::to_string(n[0]);
  const auto part = [&](ptrdiff_t first, ptrdiff_t end) {
    return below_thousand(std::span(n).subspan(static_cast<size_t>(first), static_cast<size_t>(end - first)));
  };
  int64_t total = 0;
  ptrdiff_t done = 0;
  for (const auto& [at, worth] :
       {std::pair(billion, int64_t{1000000000}), {million, int64_t{1000000}}, {thousand, int64_t{1000}}}) {
    if (at < 0) continue;
    const std::optional<int64_t> times = part(done, at);
    if (!times) return {};
    total += *times * worth;
    done = at + 1;
  }
  // What is behind the last of them that is not the last word: word2number counts "three thousand" of "two
  // million three thousand" twice.
  const ptrdiff_t last = std::ssize(n) - 1;
  if (billion < 0 && million < 0 && thousand < 0) return std::to_string(part(0, last + 1).value_or(0));
  for (const ptrdiff_t at : {thousand, million, billion}) {
    if (at >= 0 && at != last) return std::to_string(total + part(at + 1, last + 1).value_or(0));
  }
  return std::to_string(total);
}

}  // namespace qeval::eval
