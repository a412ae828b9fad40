// BIG-Bench Hard (Suzgun et al. 2022) in the harness's four forms that generate and the leaderboard's, which
// scores choices.

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/unicode.h"
#include "datasets/sample.h"
#include "eval/tasks/generating.h"
#include "eval/tasks/number_words.h"
#include "eval/tasks/python_pattern.h"

namespace qeval::eval {
namespace {

using datasets::Json;
using datasets::Row;

constexpr const char* kInvalid = "[invalid]";

/// The match that a filter selects, first or last, stripped: of several groups the first that is not empty.
/// Empty where there is none.
std::string selected(const PythonPattern& pattern, const std::string& text, bool last) {
  const auto matches = pattern.find_all(text);
  if (matches.empty()) return {};
  const std::vector<std::string>& groups = last ? matches.back() : matches.front();
  const auto found = std::ranges::find_if(groups, [](const std::string& group) { return !group.empty(); });
  return found == groups.end() ? std::string() : std::string(strip(*found));
}

/// re.escape.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && std::isalnum(byte) == 0 && c != '_') {
      out += fmt::format("\\x{{{:x}}}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

const std::string& input_of(const Document& document) {
  return document.row.at("input").get_ref<const std::string&>();
}

AnswerFilter::Step per_text(std::string description,
                            std::function<std::string(const std::string& text, const Document&)> take) {
  return {std::move(description),
          [take = std::move(take)](AnswerFilter::Texts texts, const Document& document) {
            for (std::string& text : texts) {
              text = take(text, document);
              if (text.empty()) text = kInvalid;
            }
            return texts;
          }};
}

/// The harness's MultiChoiceRegexFilter: a letter in parentheses; else a choice's words; else a letter behind
/// a colon.
AnswerFilter::Step choice_step(const std::string& pattern, bool last) {
  const auto reduced = [](std::string_view text) {
    static const PythonPattern punctuation("\\p{P}");
    return punctuation.remove_all(lower(text));
  };
  const auto take = [letter = PythonPattern(pattern), last, reduced](const std::string& text,
                                                                     const Document& document) {
    std::string found = selected(letter, text, last);
    if (!found.empty()) return found;
    static const PythonPattern listed("\\([A-Z]\\)([^\\n^(]*)");
    std::vector<std::string> patterns;
    std::map<std::string, std::string> letter_of;
    std::string letters;
    char next = 'A';
    for (const auto& match : listed.find_all(input_of(document))) {
      const std::string choice = reduced(strip(match[0]));
      patterns.push_back(escaped(choice));
      letter_of[choice] = fmt::format("({})", next);
      letters += (letters.empty() ? "" : "|") + std::string(1, next++);
    }
    std::ranges::stable_sort(patterns, std::ranges::greater(),
                             [](const std::string& one) { return count_code_points(one); });
    found = selected(PythonPattern(fmt::format("{}", fmt::join(patterns, "|"))), reduced(text), last);
    if (const auto of = letter_of.find(found); !found.empty() && of != letter_of.end()) found = of->second;
    if (!found.empty()) return found;
    found = selected(PythonPattern(":[\\s]*(" + letters + ")"), text, last);
    return found.size() == 1 ? "(" + found + ")" : found;
  };
  return per_text(fmt::format("MultiChoiceRegexFilter {} {}", pattern, last ? -1 : 0), take);
}

/// The harness's MapRegexFilter: words that stand for an answer.
AnswerFilter::Step map_step(const Json& values, bool last) {
  std::string all, description = fmt::format("MapRegexFilter {}", last ? -1 : 0);
  std::vector<std::pair<PythonPattern, std::string>> each;
  for (const auto& [pattern, value] : values.items()) {
    all += (all.empty() ? "" : "|") + pattern;
    each.emplace_back(PythonPattern(pattern), value.get<std::string>());
    description += fmt::format(" {} {}", pattern, value.get<std::string>());
  }
  return per_text(description,
                  [all = PythonPattern(all), each, last](const std::string& text, const Document&) {
                    const std::string found = lower(selected(all, lower(text), last));
                    for (const auto& [pattern, value] : each) {
                      if (!found.empty() && !selected(pattern, found, last).empty()) return value;
                    }
                    return std::string();
                  });
}

/// The harness's NumberParseRegexFilter: digits, else a number in words.
AnswerFilter::Step number_step(const std::string& pattern, bool last) {
  return per_text(fmt::format("NumberParseRegexFilter {} {}", pattern, last ? -1 : 0),
                  [digits = PythonPattern(pattern), last](const std::string& text, const Document&) {
                    const std::string found = selected(digits, text, last);
                    if (!found.empty()) return found;
                    const std::string words = selected(number_words_pattern(), lower(text), last);
                    return words.empty() ? words : number_of_words(words).value_or("");
                  });
}

/// The harness's WordSortFilter: the words of the list in the order in which the text has them last.
AnswerFilter::Step sort_step() {
  const auto take = [](AnswerFilter::Texts texts, const Document& document) {
    const std::string& input = input_of(document);
    const size_t list = input.find("List:");
    if (list == std::string::npos) fail("document {}: its input has no \"List:\"", document.doc_id);
    std::string_view rest = std::string_view(input).substr(list + 5);
    rest = rest.substr(0, rest.find("List:"));
    static const PythonPattern word("\\S+");
    std::string pattern;
    for (const auto& match : word.matches(rest))
      pattern += (pattern.empty() ? "\\b" : "|\\b") + std::string(match.groups[0]) + "\\b";
    const PythonPattern words(pattern);
    for (std::string& text : texts) {
      std::vector<std::string> order;
      for (const auto& match : words.matches(text)) {
        std::erase(order, std::string(match.groups[0]));
        order.emplace_back(match.groups[0]);
      }
      text = fmt::format("{}", fmt::join(order, " "));
    }
    return texts;
  };
  return {"WordSortFilter", take};
}

AnswerFilter flexible_filter(const Json& filter, bool last) {
  const std::string function = filter.at("function").get<std::string>();
  const std::string pattern = filter.value("regex_pattern", "");
  if (function == "regex") return {"flexible-extract", {regex_step(pattern, last ? -1 : 0)}};
  if (function == "utils.MapRegexFilter")
    return {"flexible-extract", {map_step(filter.at("regex_pattern_to_value"), last)}};
  if (function == "utils.NumberParseRegexFilter") return {"flexible-extract", {number_step(pattern, last)}};
  if (function == "utils.WordSortFilter") return {"flexible-extract", {sort_step()}};
  return {"flexible-extract", {choice_step(pattern, last)}};
}

Question ask_bbh(const Row& row, const char* ending, const std::string& join, const ExactMatchRules& rules) {
  Question question{
      .contexts = {"Q: " + row.text("input") + ending}, .target = row.text("target"), .join = join};
  question.references = {question.target};
  question.example = question.target;
  question.judge = exact_match(rules, question.references);
  return question;
}

/// A task without its form.
Task stem(const Json& definition) {
  const std::string name = definition.at("name").get<std::string>();
  return {.name = name,
          .folder = "bbh/" + name,
          .split = "test",
          .scoring = Scoring::generation,
          .preamble = definition.at("description").get<std::string>()};
}

std::vector<Json> rows(const Json& examples) {
  return {examples.begin(), examples.end()};
}

std::string name_in_words(std::string name) {
  std::ranges::replace(name, '_', ' ');
  return name;
}

Task with_examples(Task task, const Json& examples) {
  task.num_fewshot = 3;
  task.fewshot_first = true;
  task.fewshot_rows = rows(examples);
  return task;
}

Task thought_through(const Json& definition) {
  Task task = with_examples(stem(definition), definition.at("thought"));
  task.description =
      "BIG-Bench Hard, " + name_in_words(task.name) + ": thought through behind three worked examples";
  task.name = "bbh_cot_fewshot_" + task.name;
  task.version = 4;
  task.ask = [](const Row& row) { return ask_bbh(row, "\nA: Let's think step by step.\n", "", {}); };
  task.generation = generating(
      {{"get-answer", {regex_step("(?<=the answer is )(.*)(?=.)")}}}, {"exact_match"},
      {{"max_gen_toks", 1024}, {"until", {"</s>", "Q", "\n\n"}}, {"do_sample", false}, {"temperature", 0.0}},
      "exact_match");
  return task;
}

Task answered(const Json& definition) {
  Task task = with_examples(stem(definition), definition.at("answered"));
  task.description =
      "BIG-Bench Hard, " + name_in_words(task.name) + ": answered at once, behind three examples";
  task.name = "bbh_fewshot_" + task.name;
  task.version = 2;
  task.ask = [](const Row& row) { return ask_bbh(row, "\nA:", " ", {}); };
  task.generation = generating({{"none", {}}}, {"exact_match"},
                               {{"until", {"</s>", "Q", "\n\n"}}, {"do_sample", false}, {"temperature", 0.0}},
                               "exact_match");
  return task;
}

/// Without examples: answered at once, or thought through.
Task bare(const Json& definition, bool thought) {
  Task task = stem(definition);
  task.description =
      "BIG-Bench Hard, " + name_in_words(task.name) +
      (thought ? ": thought through, without an example" : ": answered at once, without an example");
  task.name = (thought ? "bbh_cot_zeroshot_" : "bbh_zeroshot_") + task.name;
  task.version = 3;
  const ExactMatchRules rules{.regexes_to_ignore = {"\\.$", ",", "\n", "\\\\", "\""}, .ignore_case = true};
  task.ask = [thought, rules](const Row& row) {
    return ask_bbh(row, thought ? "\nA: Let's think step by step." : "\nA:", " ", rules);
  };
  std::vector<AnswerFilter> filters{flexible_filter(definition.at("flexible"), thought)};
  if (thought) {
    filters.push_back(
        {"strict-match",
         {regex_step("((?<=The answer is )(.*)(?=.)|(?<=the answer is )(.*)(?=.)|(?<=The answer: )"
                     "(.*)(?=.)|(?<=The final answer: )(.*)(?=.))")}});
  } else {
    filters.insert(filters.begin(), AnswerFilter{"strict-match", {}});
  }
  task.generation =
      generating(std::move(filters), {"exact_match"},
                 {{"until", {"</s>", "Q:", "<|im_end|>"}}, {"do_sample", false}, {"temperature", 0.0}},
                 "exact_match, case ignored, without . , \\ \" and line ends");
  return task;
}

Task leaderboard(const Json& definition) {
  const Json& board = definition.at("leaderboard");
  Task task = with_examples(stem(definition), board.at("examples"));
  task.description =
      "BIG-Bench Hard, " + name_in_words(task.name) + ": choices, as the second Open LLM Leaderboard asks it";
  task.name = "leaderboard_bbh_" + task.name;
  task.scoring = Scoring::multiple_choice;
  task.metrics = {"acc_norm"};
  task.preamble = board.at("description").get<std::string>();
  task.ask = [choices = board.at("choices").get<std::vector<std::string>>()](const Row& row) {
    const std::string& target = row.text("target");
    const auto found = std::ranges::find(choices, target);
    if (found == choices.end())
      row.fail_at("target",
                  fmt::format("\"{}\" is none of {}", printable(target, 60), fmt::join(choices, ", ")));
    Question question = choose("Q: " + row.text("input") + "\nA:", choices, found - choices.begin());
    question.target = target;
    return question;
  };
  return task;
}

const std::vector<Json>& definitions() {
  static const std::vector<Json> all = datasets::shipped_definition("bbh");
  return all;
}

}  // namespace

std::vector<Task> bbh_tasks() {
  std::vector<Task> out;
  for (const Json& definition : definitions()) out.push_back(thought_through(definition));
  for (const Json& definition : definitions()) out.push_back(bare(definition, true));
  for (const Json& definition : definitions()) out.push_back(answered(definition));
  for (const Json& definition : definitions()) out.push_back(bare(definition, false));
  for (const Json& definition : definitions()) {
    if (definition.contains("leaderboard")) out.push_back(leaderboard(definition));
  }
  return out;
}

std::vector<Group> bbh_groups() {
  const auto group = [](const std::string& name, const std::string& prefix, const std::string& description,
                        const std::string& metric) {
    Group out{.name = name, .description = description, .metrics = {metric}};
    for (const Json& definition : definitions()) {
      if (metric != "acc_norm" || definition.contains("leaderboard"))
        out.tasks.push_back(prefix + definition.at("name").get<std::string>());
    }
    return out;
  };
  const char* const kThought = "BIG-Bench Hard: the 27 tasks, thought through";
  return {group("bbh", "bbh_cot_fewshot_", kThought, "exact_match,get-answer"),
          group("bbh_cot_fewshot", "bbh_cot_fewshot_", kThought, "exact_match,get-answer"),
          group("bbh_cot_zeroshot", "bbh_cot_zeroshot_",
                "BIG-Bench Hard: thought through, without an example", "exact_match,flexible-extract"),
          group("bbh_fewshot", "bbh_fewshot_", "BIG-Bench Hard: answered at once", "exact_match"),
          group("bbh_zeroshot", "bbh_zeroshot_", "BIG-Bench Hard: answered at once, without an example",
                "exact_match,flexible-extract"),
          group("leaderboard_bbh", "leaderboard_bbh_", "BIG-Bench Hard: choices of 24 tasks", "acc_norm")};
}

}  // namespace qeval::eval
