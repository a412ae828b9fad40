#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/row.h"

namespace qeval::eval {

/// What one row asks: which of the choices follows the context best.
struct Question {
  std::vector<std::string> contexts = {};  ///< one for all choices, or one per choice
  std::vector<std::string> choices =
      {};                          ///< the texts that are scored and measured, without the joining text
  std::vector<int64_t> gold = {};  ///< positions of the right choices: one, or all true ones
  std::string target = {};         ///< the right answer as the samples file spells it; empty: the position
  std::string join = " ";          ///< between context and choice; counts as part of the continuation
  std::string raw = {};  ///< rolling: the text whose words and bytes count; empty: the one that is scored
  /// Generation, which has one context and no choices: the answer as an example in front of other questions
  /// has it, …
  std::string example = {};
  std::vector<std::string> references = {};  ///< … the right answers, any of which will do, …
  /// … and what a text that was written and filtered is worth: a value per metric (generation.h).
  std::function<std::vector<double>(const std::string& answer)> judge = {};
  int64_t parts = 0;  ///< generation: DocumentFacts::parts
};

/// A multiple-choice question with one right answer.
Question choose(std::string context, std::vector<std::string> choices, int64_t gold);

/// A text of a rolling task. Words and bytes are counted in `raw`, or where it is empty in `text`.
Question running_text(std::string text, std::string raw = {});

/// `head` followed by "A. first\nB. second\n…" and "Answer:".
std::string lettered_prompt(std::string_view head, const std::vector<std::string>& choices);

/// {"A", "B", …}: `count` letters, at most 26.
std::vector<std::string> letters(size_t count);

/// The pieces of ARC-like rows, in the columns of the hub copies (`question`, `choices.text`,
/// `choices.label`) or nested as in the original releases (`question.stem`, `question.choices` a list of
/// {text, label}). Rows may have any number of choices and any labels; the answer key must be one of them,
/// without the white space in front of it where `key_is_indented`.
struct LabelledRow {
  std::string question;
  std::vector<std::string> choices;
  std::vector<std::string> labels;  ///< one per choice
  int64_t gold = 0;
};
LabelledRow labelled_row(const datasets::Row& row, std::string_view question_field = "question",
                         bool key_is_indented = false);

/// HellaSwag's cleaning of a text, once, in this order: strip; " [title]" becomes ". "; `[…]` (shortest match
/// within a line) goes; "  " becomes " " once, from left to right. What a deleted bracket leaves at the ends
/// stays.
std::string clean_hellaswag(std::string_view text);

}  // namespace qeval::eval
