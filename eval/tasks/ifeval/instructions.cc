#include "eval/tasks/ifeval/instructions.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include <fmt/ranges.h>

#include "base/characters.h"
#include "base/error.h"
#include "base/unicode.h"
#include "eval/tasks/python_pattern.h"

namespace qeval::eval {
namespace {

using datasets::Json;
using datasets::Row;

/// The arguments of one instruction of a row. Those that Python takes for false count as missing.
class Arguments {
 public:
  Arguments(const Row& row, size_t index, std::shared_ptr<LanguageData> data)
      : row_(row), at_(fmt::format("kwargs.{}", index)), data_(std::move(data)) {}

  std::string text(const char* name) const {
    const Json& value = present(name);
    if (!value.is_string()) row_.fail_at(path(name), "a string is expected");
    return value.get<std::string>();
  }
  /// str.strip() of a text.
  std::string stripped(const char* name) const { return std::string(strip(text(name))); }
  double number(const char* name) const {
    const Json& value = present(name);
    if (!value.is_number() || value.get<double>() < 0)
      row_.fail_at(path(name), "a number from 0 is expected");
    return value.get<double>();
  }
  std::vector<std::string> texts(const char* name) const {
    present(name);
    return row_.texts(path(name));
  }
  /// "less than" or "at least" of a number: what a count is held against.
  std::function<bool(int64_t)> bound(const char* threshold_name, const char* relation_name) const {
    const double threshold = number(threshold_name);
    const std::string relation = text(relation_name);
    if (relation == "less than") return [=](int64_t count) { return static_cast<double>(count) < threshold; };
    if (relation == "at least") return [=](int64_t count) { return static_cast<double>(count) >= threshold; };
    row_.fail_at(path(relation_name), "\"less than\" or \"at least\" is expected");
  }
  [[noreturn]] void refuse(const char* name, const std::string& message) const {
    row_.fail_at(path(name), message);
  }
  std::shared_ptr<const SentenceSplitter> sentences() const { return data_->sentences(folder()); }
  std::shared_ptr<const LanguageDetector> languages() const { return data_->languages(folder()); }

 private:
  std::string path(const char* name) const { return fmt::format("{}.{}", at_, name); }
  std::filesystem::path folder() const { return std::filesystem::path(row_.file()).parent_path(); }
  const Json& present(const char* name) const {
    const Json* value = row_.find(path(name));
    const bool is_false = value == nullptr || value->is_null() || value->empty() ||
                          (value->is_string() && value->get_ref<const std::string&>().empty()) ||
                          (value->is_boolean() && !value->get<bool>()) ||
                          (value->is_number() && value->get<double>() == 0);
    if (is_false) row_.fail_at(path(name), "is missing or zero; the harness would draw it by chance");
    return *value;
  }

  const Row& row_;
  std::string at_;
  std::shared_ptr<LanguageData> data_;
};

/// The pattern of a text that the harness takes for one; an error names the argument.
PythonPattern pattern_of(const Arguments& arguments, const char* name, const std::string& pattern,
                         bool ignore_case = true) {
  try {
    return PythonPattern(pattern, ignore_case);
  } catch (const Error& error) {
    arguments.refuse(name, error.what());
  }
}

bool all_in_case(std::string_view text, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  bool found = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text, at);
    if (other(point.value) || is_title(point.value)) return false;
    found = found || wanted(point.value);
    at += point.length;
  }
  return found;
}

std::string_view strip_of(std::string_view text, char c) {
  while (text.starts_with(c)) text.remove_prefix(1);
  while (text.ends_with(c)) text.remove_suffix(1);
  return text;
}

InstructionCheck keywords(const Arguments& arguments) {
  std::vector<PythonPattern> wanted;
  for (const std::string& word : arguments.texts("keywords"))
    wanted.push_back(pattern_of(arguments, "keywords", word));
  return [wanted](const std::string& text) {
    return std::ranges::all_of(wanted, [&](const PythonPattern& word) { return word.is_in(text); });
  };
}

InstructionCheck keyword_frequency(const Arguments& arguments) {
  return [word = pattern_of(arguments, "keyword", arguments.stripped("keyword")),
          bound = arguments.bound("frequency", "relation")](const std::string& text) {
    return bound(std::ssize(word.matches(text)));
  };
}

InstructionCheck forbidden_words(const Arguments& arguments) {
  std::vector<PythonPattern> refused;
  for (const std::string& word : arguments.texts("forbidden_words"))
    refused.push_back(pattern_of(arguments, "forbidden_words", "\\b" + word + "\\b"));
  return [refused](const std::string& text) {
    return std::ranges::none_of(refused, [&](const PythonPattern& word) { return word.is_in(text); });
  };
}

InstructionCheck letter_frequency(const Arguments& arguments) {
  const std::string letter = lower(arguments.text("letter"));
  if (letter.size() != 1 || letter[0] < 'a' || letter[0] > 'z')
    arguments.refuse("letter", "a letter from a to z is expected; the harness would draw one by chance");
  return [letter, bound = arguments.bound("let_frequency", "let_relation")](const std::string& text) {
    return bound(std::ranges::count(lower(text), letter[0]));
  };
}

InstructionCheck response_language(const Arguments& arguments) {
  return [language = arguments.text("language"), detector = arguments.languages()](const std::string& text) {
    const std::optional<std::string> found = detector->detect(text);
    return !found || *found == language;
  };
}

InstructionCheck number_sentences(const Arguments& arguments) {
  return [splitter = arguments.sentences(), bound = arguments.bound("num_sentences", "relation")](
             const std::string& text) { return bound(std::ssize(splitter->sentences(text))); };
}

InstructionCheck number_paragraphs(const Arguments& arguments) {
  return [divider = PythonPattern("\\s?\\*\\*\\*\\s?"),
          wanted = arguments.number("num_paragraphs")](const std::string& text) {
    const std::vector<std::string> paragraphs = divider.split(text);
    int64_t count = std::ssize(paragraphs);
    for (size_t i = 0; i < paragraphs.size(); ++i) {
      if (!strip(paragraphs[i]).empty()) continue;
      if (i != 0 && i + 1 != paragraphs.size()) return false;
      --count;
    }
    return static_cast<double>(count) == wanted;
  };
}

InstructionCheck number_words(const Arguments& arguments) {
  return [word = PythonPattern(std::string(kNltkWord) + "+"),
          bound = arguments.bound("num_words", "relation")](const std::string& text) {
    return bound(std::ssize(word.matches(text)));
  };
}

InstructionCheck nth_paragraph_first_word(const Arguments& arguments) {
  const double wanted = arguments.number("num_paragraphs"), nth = arguments.number("nth_paragraph");
  if (nth > wanted)
    arguments.refuse("nth_paragraph", "is beyond num_paragraphs; the harness would draw another by chance");
  return [wanted, nth = static_cast<size_t>(nth),
          first = lower(arguments.text("first_word"))](const std::string& text) {
    const std::vector<std::string> paragraphs = split_at(text, "\n\n");
    const auto count = std::ranges::count_if(paragraphs, [](const auto& p) { return !strip(p).empty(); });
    if (static_cast<int64_t>(nth) > count) return false;
    std::string_view paragraph = strip(paragraphs[nth - 1]);
    if (paragraph.empty()) return false;
    size_t end = 0;
    while (end < paragraph.size()) {
      const CodePoint point = code_point_at(paragraph, end);
      if (is_python_space(point.value)) break;
      end += point.length;
    }
    std::string_view word = paragraph.substr(0, end);
    while (word.starts_with('\'')) word.remove_prefix(1);
    while (word.starts_with('"')) word.remove_prefix(1);
    word = word.substr(0, word.find_first_of(".,?!'\""));
    std::string letters;
    for (size_t at = 0; at < word.size();) {
      const CodePoint point = code_point_at(word, at);
      letters += lower(word.substr(at, point.length));
      at += point.length;
    }
    return static_cast<double>(count) == wanted && letters == first;
  };
}

InstructionCheck number_placeholders(const Arguments& arguments) {
  return [place = PythonPattern("\\[.*?\\]"), wanted = arguments.number("num_placeholders")](
             const std::string& text) { return static_cast<double>(place.matches(text).size()) >= wanted; };
}

InstructionCheck postscript(const Arguments& arguments) {
  const std::string marker = arguments.stripped("postscript_marker");
  const std::string pattern = marker == "P.P.S"  ? "\\s*p\\.\\s?p\\.\\s?s.*$"
                              : marker == "P.S." ? "\\s*p\\.\\s?s\\..*$"
                                                 : "\\s*" + lower(marker) + ".*$";
  return [found = pattern_of(arguments, "postscript_marker", "(?m)" + pattern, false)](
             const std::string& text) { return found.is_in(lower(text)); };
}

InstructionCheck number_bullet_lists(const Arguments& arguments) {
  return [stars = PythonPattern("(?m)^\\s*\\*[^\\*].*$"), dashes = PythonPattern("(?m)^\\s*-.*$"),
          wanted = arguments.number("num_bullets")](const std::string& text) {
    return static_cast<double>(stars.matches(text).size() + dashes.matches(text).size()) == wanted;
  };
}

InstructionCheck constrained_response(const Arguments&) {
  return [](const std::string& text) {
    constexpr std::string_view kOptions[] = {"My answer is yes.", "My answer is no.", "My answer is maybe."};
    return std::ranges::any_of(
        kOptions, [&](std::string_view option) { return text.find(option) != std::string::npos; });
  };
}

InstructionCheck number_highlighted_sections(const Arguments& arguments) {
  return [single = PythonPattern("\\*[^\\n\\*]*\\*"), twice = PythonPattern("\\*\\*[^\\n\\*]*\\*\\*"),
          wanted = arguments.number("num_highlights")](const std::string& text) {
    int64_t count = 0;
    for (const auto& match : single.matches(text))
      count += strip(strip_of(match.groups[0], '*')).empty() ? 0 : 1;
    for (const auto& match : twice.matches(text)) {
      const std::string_view whole = match.groups[0];
      count += strip(whole.substr(2, whole.size() - 4)).empty() ? 0 : 1;
    }
    return static_cast<double>(count) >= wanted;
  };
}

InstructionCheck multiple_sections(const Arguments& arguments) {
  const std::string pattern = "\\s?" + arguments.stripped("section_spliter") + "\\s?\\d+\\s?";
  return [mark = pattern_of(arguments, "section_spliter", pattern, false),
          wanted = arguments.number("num_sections")](const std::string& text) {
    size_t pieces = 0;  // re.split has the groups of a pattern, too
    for (const auto& match : mark.matches(text)) pieces += match.groups.size();
    return static_cast<double>(pieces) >= wanted;
  };
}

InstructionCheck json_format(const Arguments&) {
  return [](const std::string& response) {
    std::string_view text = strip(response);
    for (const std::string_view ticks : {"```json", "```Json", "```JSON", "```"}) {
      if (text.starts_with(ticks)) text.remove_prefix(ticks.size());
    }
    if (text.ends_with("```")) text.remove_suffix(3);
    return is_python_json(strip(text));
  };
}

InstructionCheck title(const Arguments&) {
  return [pattern = PythonPattern("<<[^\\n]+>>")](const std::string& text) {
    return std::ranges::any_of(pattern.matches(text), [](const PythonPattern::Match& match) {
      std::string_view words = match.groups[0];
      while (words.starts_with('<')) words.remove_prefix(1);
      while (words.ends_with('>')) words.remove_suffix(1);
      return !strip(words).empty();
    });
  };
}

InstructionCheck two_responses(const Arguments&) {
  return [](const std::string& text) {
    const std::vector<std::string> parts = split_at(text, "******");
    std::vector<std::string_view> responses;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string_view part = strip(parts[i]);
      if (!part.empty()) {
        responses.push_back(part);
      } else if (i != 0 && i + 1 != parts.size()) {
        return false;
      }
    }
    return responses.size() == 2 && responses[0] != responses[1];
  };
}

InstructionCheck repeat_prompt(const Arguments& arguments) {
  return [prompt = lower(strip(arguments.text("prompt_to_repeat")))](const std::string& text) {
    return lower(strip(text)).starts_with(prompt);
  };
}

InstructionCheck end_checker(const Arguments& arguments) {
  return [phrase = lower(strip(arguments.text("end_phrase")))](const std::string& text) {
    return lower(strip_of(strip(text), '"')).ends_with(phrase);
  };
}

InstructionCheck capital_word_frequency(const Arguments& arguments) {
  return [splitter = arguments.sentences(),
          bound = arguments.bound("capital_frequency", "capital_relation")](const std::string& text) {
    return bound(std::ranges::count_if(splitter->words(text), [](const std::string& word) {
      return all_in_case(word, is_upper, is_lower);
    }));
  };
}

/// English, in letters of one case.
InstructionCheck english_in_case(const Arguments& arguments, bool (*wanted)(char32_t),
                                 bool (*other)(char32_t)) {
  return [detector = arguments.languages(), wanted, other](const std::string& text) {
    if (!all_in_case(text, wanted, other)) return false;
    const std::optional<std::string> found = detector->detect(text);
    return !found || *found == "en";
  };
}

InstructionCheck no_comma(const Arguments&) {
  return [](const std::string& text) { return text.find(',') == std::string::npos; };
}

InstructionCheck quotation(const Arguments&) {
  return [](const std::string& response) {
    const std::string_view text = strip(response);
    return text.size() > 1 && text.starts_with('"') && text.ends_with('"');
  };
}

using Maker = InstructionCheck (*)(const Arguments&);
const std::map<std::string, Maker, std::less<>>& makers() {
  static const std::map<std::string, Maker, std::less<>> all = {
      {"keywords:existence", keywords},
      {"keywords:frequency", keyword_frequency},
      {"keywords:forbidden_words", forbidden_words},
      {"keywords:letter_frequency", letter_frequency},
      {"language:response_language", response_language},
      {"length_constraints:number_sentences", number_sentences},
      {"length_constraints:number_paragraphs", number_paragraphs},
      {"length_constraints:number_words", number_words},
      {"length_constraints:nth_paragraph_first_word", nth_paragraph_first_word},
      {"detectable_content:number_placeholders", number_placeholders},
      {"detectable_content:postscript", postscript},
      {"detectable_format:number_bullet_lists", number_bullet_lists},
      {"detectable_format:constrained_response", constrained_response},
      {"detectable_format:number_highlighted_sections", number_highlighted_sections},
      {"detectable_format:multiple_sections", multiple_sections},
      {"detectable_format:json_format", json_format},
      {"detectable_format:title", title},
      {"combination:two_responses", two_responses},
      {"combination:repeat_prompt", repeat_prompt},
      {"startend:end_checker", end_checker},
      {"change_case:capital_word_frequency", capital_word_frequency},
      {"change_case:english_capital",
       [](const Arguments& a) { return english_in_case(a, is_upper, is_lower); }},
      {"change_case:english_lowercase",
       [](const Arguments& a) { return english_in_case(a, is_lower, is_upper); }},
      {"punctuation:no_comma", no_comma},
      {"startend:quotation", quotation},
  };
  return all;
}

}  // namespace

std::vector<InstructionCheck> instruction_checks(const Row& row, const std::shared_ptr<LanguageData>& data) {
  std::vector<InstructionCheck> out;
  const std::vector<std::string> ids = row.texts("instruction_id_list");
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = makers().find(ids[i]);
    if (found == makers().end()) {
      std::vector<std::string> known;
      for (const auto& [name, unused] : makers()) known.push_back(name);
      row.fail_at(
          fmt::format("instruction_id_list.{}", i),
          fmt::format("\"{}\" is none of the kinds {}", printable(ids[i], 60), fmt::join(known, ", ")));
    }
    out.push_back(found->second(Arguments(row, i, data)));
  }
  return out;
}

}  // namespace qeval::eval
