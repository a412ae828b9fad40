#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/engine/jinja/value.h"
#include "eval/tasks/generating.h"
#include "eval/tasks/python_pattern.h"

namespace qeval::eval {
namespace {

/// The text with the digits of every script as those of ASCII.
std::string with_ascii_digits(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text, at);
    const int digit = decimal_value(point.value);
    if (digit >= 0) {
      out += static_cast<char>('0' + digit);
    } else {
      out += text.substr(at, point.length);
    }
    at += point.length;
  }
  return out;
}

/// Python's float(text).
std::optional<double> python_float(std::string_view given) {
  const std::string text = with_ascii_digits(strip(given));
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] != '_') {
      plain += text[i];
    } else if (i == 0 || !digit(i - 1) || !digit(i + 1)) {
      return {};
    }
  }
  const bool negative = plain.starts_with('-');
  if (negative || plain.starts_with('+')) plain.erase(0, 1);
  const std::string word = lower(plain);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (word == "inf" || word == "infinity") return negative ? -kInfinity : kInfinity;
  if (word == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (plain.empty() || plain.find_first_not_of("0123456789.eE+-") != std::string::npos) return {};
  double value = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (end != plain.data() + plain.size() || plain.starts_with('-')) return {};
  if (error == std::errc::result_out_of_range) value = std::strtod(plain.c_str(), nullptr);
  return negative ? -value : value;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> out;
  for (text = strip(text); !text.empty(); text = strip_left(text)) {
    size_t end = 0;
    while (end < text.size() && strip_left(text.substr(end)).size() == text.size() - end)
      end += code_point_length(text.substr(end));
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return out;
}

std::string joined_words(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string normalized_token(std::string token) {
  static const PythonPattern articles(R"(\b(a|an|the)\b)");
  constexpr std::string_view kPunctuation = R"(!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~)";
  token = lower(token);
  if (!python_float(token))
    std::erase_if(token, [&](char c) { return kPunctuation.find(c) != std::string_view::npos; });
  if (const auto number = python_float(token)) token = jinja::repr_of_real(*number);
  return joined_words(words_of(articles.replace_all(token, " ")));
}

std::string normalized(const std::string& text) {
  std::vector<std::string> tokens;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find_first_of(" -", begin), text.size());
    std::string token = normalized_token(text.substr(begin, end - begin));
    if (!token.empty()) tokens.push_back(std::move(token));
    begin = end + 1;
  }
  return joined_words(tokens);
}

using Bag = std::set<std::string>;

Bag bag_of(const std::string& text) {
  const std::vector<std::string> words = words_of(text);
  return {words.begin(), words.end()};
}

Bag numbers_of(const Bag& bag) {
  Bag out;
  for (const std::string& word : bag) {
    if (python_float(word)) out.insert(word);
  }
  return out;
}

size_t common(const Bag& a, const Bag& b) {
  return static_cast<size_t>(
      std::ranges::count_if(a, [&](const std::string& word) { return b.contains(word); }));
}

double f1_of(const Bag& predicted, const Bag& gold) {
  const Bag numbers = numbers_of(gold);
  if (!numbers.empty() && common(numbers, numbers_of(predicted)) == 0) return 0;
  const auto shared = static_cast<double>(common(gold, predicted));
  const double precision = predicted.empty() ? 1.0 : shared / static_cast<double>(predicted.size());
  const double recall = gold.empty() ? 1.0 : shared / static_cast<double>(gold.size());
  return precision == 0 && recall == 0 ? 0 : 2 * precision * recall / (precision + recall);
}

}  // namespace

std::vector<double> drop_metrics(const std::string& answer,
                                 const std::vector<std::vector<std::string>>& right) {
  const std::string predicted = normalized(answer);
  const Bag bag = bag_of(predicted);
  double best_match = 0, best_f1 = 0;
  for (const std::vector<std::string>& gold : right) {
    if (strip(gold.front()).empty()) continue;
    bool all_alike = gold.size() == 1;
    double f1 = 0;  // one text can answer for one of several
    for (const std::string& text : gold) {
      const std::string wanted = normalized(text);
      all_alike = all_alike && wanted == predicted;
      f1 = std::max(f1, f1_of(bag, bag_of(wanted)));
    }
    f1 = std::nearbyint(f1 / static_cast<double>(gold.size()) * 100) / 100;
    best_match = std::max(best_match, all_alike ? 1.0 : 0.0);
    best_f1 = std::max(best_f1, f1);
  }
  return {best_match, best_f1};
}

}  // namespace qeval::eval
