#include "eval/tasks/math_answers.h"

#include <algorithm>
#include <array>
#include <vector>

#include <fmt/format.h>

#include "base/characters.h"
#include "base/unicode.h"
#include "eval/tasks/python_pattern.h"

namespace qeval::eval {
namespace {

void replace(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

/// The first character of a text that is not empty.
std::string_view letter(std::string_view text) {
  return text.substr(0, code_point_length(text));
}

/// \frac1b and \frac12 with braces. Nothing where a \frac is the end of the text.
std::optional<std::string> with_fractions(const std::string& text) {
  const std::vector<std::string> parts = split_at(text, "\\frac");
  std::string out = parts.front();
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    out += "\\frac";
    if (part.empty()) return {};
    if (part.front() == '{') {
      out += part;
      continue;
    }
    const std::string_view first = letter(part), behind = std::string_view(part).substr(first.size());
    if (behind.empty()) return text;
    const std::string_view second = letter(behind), rest = behind.substr(second.size());
    out += fmt::format("{{{}}}", first);
    out += second == "{" ? std::string(second) : fmt::format("{{{}}}", second);
    out += rest;
  }
  return out;
}

/// \sqrt3 with braces.
std::optional<std::string> with_roots(const std::string& text) {
  const std::vector<std::string> parts = split_at(text, "\\sqrt");
  std::string out = parts.front();
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    if (part.empty()) return {};
    if (part.front() == '{') {
      out += fmt::format("\\sqrt{}", part);
      continue;
    }
    const std::string_view first = letter(part);
    out += fmt::format("\\sqrt{{{}}}{}", first, part.substr(first.size()));
  }
  return out;
}

/// How Python writes int(text); nothing where that is no number.
std::optional<std::string> integer_text(std::string_view text) {
  text = strip(text);
  const bool negative = text.starts_with('-');
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  std::string digits;
  bool digit_before = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text, at);
    at += point.length;
    if (point.value == '_' && digit_before && at < text.size()) {
      digit_before = false;
      continue;
    }
    const int value = decimal_value(point.value);
    if (value < 0) return {};
    digits += static_cast<char>('0' + value);
    digit_before = true;
  }
  if (digits.empty() || !digit_before) return {};
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
  return negative && digits != "0" ? fmt::format("-{}", digits) : digits;
}

/// a/b as \frac{a}{b}, of whole numbers. Nothing where one of the two is none.
std::optional<std::string> with_slash(const std::string& text) {
  const std::vector<std::string> parts = split_at(text, "/");
  if (parts.size() != 2) return text;
  const std::optional<std::string> a = integer_text(parts[0]), b = integer_text(parts[1]);
  if (!a || !b) return {};
  return text == fmt::format("{}/{}", *a, *b) ? fmt::format("\\frac{{{}}}{{{}}}", *a, *b) : text;
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kSubstitutions = {
    {{"an ", ""},
     {"a ", ""},
     {".$", "$"},
     {"\\$", ""},
     {"\\ ", ""},
     {" ", ""},
     {"mbox", "text"},
     {",\\text{and}", ","},
     {"\\text{and}", ","},
     {"\\text{m}", "\\text{}"}}};
constexpr std::array<std::string_view, 40> kRemoved = {
    "square",          "ways",       "integers",   "dollars",   "mph",
    "inches",          "ft",         "hours",      "km",        "units",
    "\\ldots",         "sue",        "points",     "feet",      "minutes",
    "digits",          "cents",      "degrees",    "cm",        "gm",
    "pounds",          "meters",     "meals",      "edges",     "students",
    "childrentickets", "multiples",  "\\text{s}",  "\\text{.}", "\\text{\ns}",
    "\\text{}^2",      "\\text{}^3", "\\text{\n}", "\\text{}",  "\\mathrm{th}",
    "^\\circ",         "^{\\circ}",  "\\;",        ",\\!",      "{,}"};
constexpr std::array<std::string_view, 2> kRemovedAfter = {"\"", "\\dots"};

bool is_word(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 'a' && c <= 'z'; });
}

/// Removes units that are glued to what is around them, but not inside the name of a command.
std::string without_glued(const std::string& text, std::string_view unit) {
  static const PythonPattern command("\\\\[a-zA-Z]+");
  std::string out;
  size_t begin = 0;
  const auto add = [&](size_t end) {
    std::string piece = text.substr(begin, end - begin);
    replace(piece, unit, "");
    out += piece;
  };
  for (const auto& match : command.matches(text)) {
    add(match.begin);
    out += match.groups[0];
    begin = match.end;
  }
  add(text.size());
  return out;
}

}  // namespace

std::optional<std::string> boxed_answer(const std::string& solution) {
  constexpr std::string_view kSpaced = "\\boxed ", kBraced = "\\boxed{";
  size_t at = solution.rfind(kSpaced);
  if (at != std::string::npos) {
    const std::string rest = solution.substr(at + kSpaced.size());
    return rest.substr(0, rest.find('$'));
  }
  at = solution.rfind("\\boxed");
  if (at == std::string::npos) at = solution.rfind("\\fbox");
  if (at == std::string::npos) return {};
  int64_t open = 0;
  for (size_t i = at; i < solution.size(); ++i) {
    if (solution[i] == '{') ++open;
    if (solution[i] != '}' || --open != 0) continue;
    if (!std::string_view(solution).substr(at).starts_with(kBraced)) return {};
    return solution.substr(at + kBraced.size(), i - at - kBraced.size());
  }
  return {};
}

std::optional<std::string> hendrycks_form(std::string text) {
  for (const auto& [from, to] : {std::pair<std::string_view, std::string_view>{"\n", ""},
                                 {"\\!", ""},
                                 {"\\\\", "\\"},
                                 {"tfrac", "frac"},
                                 {"dfrac", "frac"},
                                 {"\\left", ""},
                                 {"\\right", ""},
                                 {"^{\\circ}", ""},
                                 {"^\\circ", ""},
                                 {"\\$", ""}})
    replace(text, from, to);
  const std::vector<std::string> units = split_at(text, "\\text{ ");
  if (units.size() > 2) return {};
  text = units.front();
  replace(text, "\\%", "");
  replace(text, " .", " 0.");
  replace(text, "{.", "{0.");
  if (text.empty()) return text;
  if (text.front() == '.') text = fmt::format("0{}", text);
  const std::vector<std::string> sides = split_at(text, "=");
  if (sides.size() == 2 && count_code_points(sides[0]) <= 2) text = sides[1];
  std::optional<std::string> out = with_roots(text);
  if (!out) return {};
  replace(*out, " ", "");
  out = with_fractions(*out);
  if (!out) return {};
  if (*out == "0.5") out = "\\frac{1}{2}";
  return with_slash(*out);
}

std::string minerva_form(std::string text, bool leaderboard) {
  text = split_at(text, "=").back();
  if (!leaderboard) {
    for (const std::string_view word : kRemoved) {
      if (is_word(word)) text = PythonPattern("(?<!\\\\)\\b" + std::string(word) + "\\b").remove_all(text);
    }
  }
  for (const auto& [from, to] : kSubstitutions) replace(text, from, to);
  const auto remove = [&](std::string_view expression) {
    if (leaderboard || !is_word(expression)) {
      replace(text, expression, "");
    } else {
      text = without_glued(text, expression);
    }
  };
  for (const std::string_view expression : kRemoved) remove(expression);
  for (const std::string_view expression : kRemovedAfter) remove(expression);
  static const std::array<std::pair<PythonPattern, std::string>, 6> taken_out = {
      {{PythonPattern("(.*?)(\\$)(.*?)(\\$)(.*)"), "$\\3$"},
       {PythonPattern("(\\\\text\\{)(.*?)(\\})"), "\\2"},
       {PythonPattern("(\\\\textbf\\{)(.*?)(\\})"), "\\2"},
       {PythonPattern("(\\\\overline\\{)(.*?)(\\})"), "\\2"},
       {PythonPattern("(\\\\boxed\\{)(.*)(\\})"), "\\2"},
       {PythonPattern("(frac)([^{])(.)"), "frac{\\2}{\\3}"}}};
  for (const auto& [pattern, replacement] : taken_out) text = pattern.substitute(text, replacement);
  static const PythonPattern indexed("(sqrt)(\\[[^\\]]*\\])(\\w)"), root("(sqrt)(?!\\[)([^{])"),
      any_root("(sqrt)([^{])");
  if (!leaderboard) text = indexed.substitute(text, "\\1\\2{\\3}");
  text = (leaderboard ? any_root : root).substitute(text, "sqrt{\\2}");
  std::erase(text, '$');
  std::string without_commas = text;
  std::erase(without_commas, ',');
  if (leaderboard) {
    bool digits = !without_commas.empty();
    for (size_t at = 0; at < without_commas.size();) {
      const CodePoint point = code_point_at(without_commas, at);
      digits = digits && is_digit(point.value);
      at += point.length;
    }
    return digits ? without_commas : text;
  }
  static const PythonPattern thousands("\\A-?\\d{1,3}(,\\d{3})+\\z");
  return thousands.is_in(text) ? without_commas : text;
}

std::string minerva_answer(const std::string& text) {
  static const PythonPattern final("Final Answer: The final answer is(.*?). I hope it is correct.");
  const auto found = final.matches(text + "I hope it is correct.");
  return found.empty() ? "[invalidanswer]" : std::string(strip(found.front().groups[1]));
}

}  // namespace qeval::eval
