#include "eval/tasks/generation.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/unicode.h"
#include "eval/tasks/python_pattern.h"
#include "eval/tasks/task.h"

namespace qeval::eval {
namespace {

/// Python's string.punctuation.
constexpr std::string_view kPunctuation = R"(!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~)";

/// What a match stands for: its only group, or the first of several that is not empty.
std::string text_of_groups(const std::vector<std::string>& groups, const std::string& fallback) {
  if (groups.size() == 1) return std::string(strip(groups.front()));
  const auto found = std::ranges::find_if(groups, [](const std::string& group) { return !group.empty(); });
  return std::string(strip(found == groups.end() ? fallback : *found));
}

std::string first_characters(std::string text, size_t count) {
  size_t end = 0;
  for (; end < text.size() && count > 0; --count)
    end += code_point_length(std::string_view(text).substr(end));
  text.resize(end);
  return text;
}

class ExactMatch {
 public:
  explicit ExactMatch(const ExactMatchRules& rules) : rules_(rules) {
    for (const std::string& pattern : rules.regexes_to_ignore) ignored_.emplace_back(pattern);
  }

  /// The texts as they are compared. The harness does it with arrays of numpy, whose texts have the width of
  /// the longest, also where lowering a letter makes two of it, and no zero characters at their ends.
  std::vector<std::string> reduced(std::vector<std::string> texts) const {
    size_t width = 0;
    for (std::string& text : texts) {
      for (const PythonPattern& pattern : ignored_) text = pattern.remove_all(text);
      width = std::max(width, count_code_points(text));
    }
    for (std::string& text : texts) {
      if (rules_.ignore_case) text = first_characters(lower(text), width);
      if (rules_.ignore_punctuation)
        std::erase_if(text, [](char c) { return kPunctuation.find(c) != std::string_view::npos; });
      while (text.ends_with('\0')) text.pop_back();
    }
    return texts;
  }

 private:
  ExactMatchRules rules_;
  std::vector<PythonPattern> ignored_;
};

}  // namespace

void AnswerFilter::check(int64_t count) const {
  for (const Step& step : steps) {
    if (step.leaves > count) {
      fail("a step takes {} texts of each document, of which {}: ask for more repeats", step.leaves,
           count == 1 ? "one is written" : fmt::format("{} are written", count));
    }
    if (step.leaves > 0) count = step.leaves;
  }
}

std::string AnswerFilter::apply(const Texts& texts, const Document& document) const {
  check(std::ssize(texts));
  Texts out = texts;
  for (const Step& step : steps) out = step.apply(std::move(out), document);
  if (out.empty()) fail("filter {} leaves no text", name);
  return out.front();
}

AnswerFilter::Step regex_step(const std::string& pattern, int64_t select, const std::string& fallback) {
  const auto take = [compiled = PythonPattern(pattern), pattern, select, fallback](const std::string& text) {
    const auto matches = compiled.find_all(text);
    const int64_t at = select < 0 ? std::ssize(matches) + select : select;
    if (matches.empty()) return fallback;
    if (at < 0 || at >= std::ssize(matches))
      fail("the pattern {} has {} in the text, of which number {} is to be taken", printable(pattern, 80),
           matches.size() == 1 ? "one match" : fmt::format("{} matches", matches.size()), select);
    return text_of_groups(matches[static_cast<size_t>(at)], fallback);
  };
  return each_step(fmt::format("regex {} {} {}", pattern, select, fallback), take);
}

AnswerFilter::Step each_step(std::string description, std::function<std::string(const std::string&)> change) {
  return {std::move(description), [change = std::move(change)](AnswerFilter::Texts texts, const Document&) {
            std::ranges::transform(texts, texts.begin(), change);
            return texts;
          }};
}

AnswerFilter::Step strip_step() {
  return each_step("remove_whitespace", [](const std::string& text) { return std::string(strip(text)); });
}

AnswerFilter::Step majority_step() {
  return {"majority_vote",
          [](AnswerFilter::Texts texts, const Document&) -> AnswerFilter::Texts {
            const auto votes = [&](const std::string& text) { return std::ranges::count(texts, text); };
            return {*std::ranges::max_element(texts, {}, votes)};  // the first of equals
          },
          1};
}

AnswerFilter::Step first_step(int64_t count) {
  return {fmt::format("take_first_k {}", count),
          [count](AnswerFilter::Texts texts, const Document&) {
            texts.resize(static_cast<size_t>(count));
            return texts;
          },
          count};
}

void Generation::check_filters() const {
  for (const AnswerFilter& filter : filters) {
    try {
      filter.check(repeats);
    } catch (const Error& error) {
      fail("filter {}: {}", printable(filter.name, 60), error.what());
    }
  }
}

nlohmann::ordered_json Generation::settings() const {
  nlohmann::ordered_json out{
      {"until", until}, {"max_gen_toks", max_tokens}, {"do_sample", temperature > 0}, {"repeats", repeats}};
  if (temperature > 0) {
    out["temperature"] = temperature;
    out["top_k"] = top_k;
    out["top_p"] = top_p;
    out["seed"] = seed;
  }
  return out;
}

std::vector<std::string> Generation::metric_names() const {
  std::vector<std::string> out;
  for (const AnswerFilter& filter : filters) {
    for (const std::string& metric : metrics)
      out.push_back(filter.name == "none" ? metric : fmt::format("{},{}", metric, filter.name));
  }
  return out;
}

JudgedTexts judge_texts(const Generation& generation, const Document& document,
                        const std::vector<std::string>& texts) {
  JudgedTexts out;
  for (const AnswerFilter& filter : generation.filters) {
    std::string filtered;
    try {
      filtered = filter.apply(texts, document);
    } catch (const Error& error) {
      fail("document {}, filter {}: {}", document.doc_id, printable(filter.name, 60), error.what());
    }
    const std::vector<double> values = document.judge(filtered);
    out.values.insert(out.values.end(), values.begin(), values.end());
    out.filtered.emplace_back(filter.name, std::move(filtered));
  }
  return out;
}

std::function<std::vector<double>(const std::string& answer)> exact_match(
    const ExactMatchRules& rules, const std::vector<std::string>& references) {
  const ExactMatch match(rules);
  return [match, right = match.reduced(references)](const std::string& answer) -> std::vector<double> {
    return {std::ranges::find(right, match.reduced({answer}).front()) != right.end() ? 1.0 : 0.0};
  };
}

}  // namespace qeval::eval
