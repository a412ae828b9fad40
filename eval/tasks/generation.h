#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval::eval {

struct Document;

/// What is taken out of the texts that a model wrote for a document, before they are judged: named steps, as
/// lm-evaluation-harness's `filter_list` has them. Each makes new texts of the texts, of which there are as
/// many as a document is asked for.
struct AnswerFilter {
  using Texts = std::vector<std::string>;
  struct Step {
    std::string description;  ///< name and settings: results of other ones are not the same task's
    std::function<Texts(Texts, const Document& document)> apply;
    int64_t leaves = 0;  ///< so many of the texts, of which there must be as many; 0: all
  };
  std::string name;
  std::vector<Step> steps = {};

  /// Throws Error where a step needs more texts than the `count` of a document leave it.
  void check(int64_t count) const;
  /// What all steps leave, of which the first text counts (`take_first`).
  std::string apply(const Texts& texts, const Document& document) const;
};

/// The harness's filter `regex`: all matches of a Python pattern are found and one is selected, counted from
/// 0 or, where negative, from the end; of a match with several groups the first that is not empty. Stripped.
AnswerFilter::Step regex_step(const std::string& pattern, int64_t select = 0,
                              const std::string& fallback = "[invalid]");
/// The harness's filter `remove_whitespace`: Python's str.strip().
AnswerFilter::Step strip_step();
/// The harness's filter `majority_vote`: the text that occurs most often, of equals the one that occurs
/// first.
AnswerFilter::Step majority_step();
/// The harness's filter `take_first_k`: the first `count` of the texts.
AnswerFilter::Step first_step(int64_t count);
/// A step that makes each text another, whatever the document.
AnswerFilter::Step each_step(std::string description, std::function<std::string(const std::string&)> change);

/// The most texts of a document.
constexpr int64_t kMostRepeats = 1000;

/// How a task lets a model write, and reads what it wrote.
struct Generation {
  std::vector<std::string> until;  ///< a text ends before any of these
  int64_t max_tokens = 256;        ///< at the latest
  int64_t repeats = 1;             ///< texts that are written for a document
  /// How tokens are drawn: greedily at temperature 0, else as SamplingOptions (eval/engine/generation.h) has
  /// it.
  double temperature = 0, top_p = 1;
  int64_t top_k = 0;
  uint64_t seed = 0;
  bool runs_code = false;            ///< to judge a text is to run it as a program
  nlohmann::ordered_json arguments;  ///< the same as the harness's definition says it, for the samples
  std::vector<AnswerFilter> filters;
  std::vector<std::string> metrics;  ///< of each filtered text, in the order of Question::judge's values
  std::string judgement = {};        ///< by what rules, in a few words: part of what results depend on

  /// Throws Error naming a filter that needs more than `repeats` texts.
  void check_filters() const;
  /// How texts come to be, by the harness's names in one order, whatever was given in which: runs whose tasks
  /// agree in it are comparable.
  nlohmann::ordered_json settings() const;
  /// "METRIC,FILTER" of every filter, or "METRIC" where the only filter is called "none", in the harness's
  /// order.
  std::vector<std::string> metric_names() const;
};

/// What a document's texts become. judge_texts() throws Error naming document and filter where a filter
/// cannot be applied.
struct JudgedTexts {
  std::vector<std::pair<std::string, std::string>> filtered;  ///< filter and text
  std::vector<double> values;                                 ///< parallel to metric_names()
};
JudgedTexts judge_texts(const Generation& generation, const Document& document,
                        const std::vector<std::string>& texts);

/// The harness's metric `exact_match` of any of the references, with its ignore rules, which change the
/// answer and the references alike before they are compared: 1 or 0.
struct ExactMatchRules {
  std::vector<std::string> regexes_to_ignore = {};  ///< Python patterns whose matches go
  bool ignore_case = false, ignore_punctuation = false;
};
std::function<std::vector<double>(const std::string& answer)> exact_match(
    const ExactMatchRules& rules, const std::vector<std::string>& references);

}  // namespace qeval::eval
