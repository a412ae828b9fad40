#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "datasets/row.h"
#include "eval/tasks/prompt.h"
#include "eval/tasks/python_random.h"
#include "eval/tasks/task.h"

namespace qeval::eval {

/// The order in which a seed draws from `count` rows: a permutation of 0 … count − 1 by Fisher and Yates over
/// SplitMix64 (Steele, Lea and Flood 2014) with unbiased bounds; the same on every machine and standard
/// library.
std::vector<size_t> draw_order(size_t count, uint64_t seed);

/// The worked examples in front of a task's prompts: the first n rows of its examples exactly as they stand,
/// even where two are equal or one is scored too (MMLU, as the harness does), or a seeded draw. All documents
/// of a task see the same examples, so that a model reads them once; a document that is itself one of the
/// drawn ones sees the next in line instead. Of a task that draws as lm-evaluation-harness does, every
/// document sees others.
class FewShot {
 public:
  FewShot() = default;
  /// Throws Error where the table holds too few rows (a draw: different ones), or where a drawn row cannot be
  /// asked.
  FewShot(const Task& task, const datasets::Table& table, int64_t count, uint64_t seed);

  /// The examples as they stand before the prompt of `scored`, the split's next document, two messages each:
  /// the context, followed by the joining text, and the right answer, followed by a blank line. Empty without
  /// examples.
  std::vector<Message> before(const datasets::Row& scored);

 private:
  std::vector<Message> drawn_before(const datasets::Row& scored);

  struct Example {
    datasets::Json row;
    Message question, answer;
  };
  std::vector<Example> examples_;  // count_ of them, and in a draw one in reserve where there is one
  size_t count_ = 0;
  bool fixed_ = false;  // the first rows as they stand
  std::string where_;   // the file, for messages
  std::optional<PythonRandom> harness_draw_;
  bool beside_ = false;                   // one more is drawn
  std::vector<datasets::Row> rows_ = {};  // what it draws from
  Task task_ = {};                        // that makes examples of them
};

}  // namespace qeval::eval
