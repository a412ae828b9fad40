#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "datasets/row.h"
#include "eval/tasks/task.h"

namespace qeval::eval {

/// The order in which a seed draws from `count` rows: a permutation of 0 … count − 1 by Fisher and Yates over
/// SplitMix64 (Steele, Lea and Flood 2014) with unbiased bounds; the same on every machine and standard
/// library.
std::vector<size_t> draw_order(size_t count, uint64_t seed);

/// The worked examples in front of a task's prompts: the first n rows of its examples exactly as they stand,
/// even where two are equal or one is scored too (MMLU, as the harness does), or a seeded draw. All documents
/// of a task see the same examples, so that a model reads them once; a document that is itself one of the
/// drawn ones sees the next in line instead.
class FewShot {
 public:
  FewShot() = default;
  /// Throws Error where the table holds too few rows (a draw: different ones), or where a drawn row cannot be
  /// asked.
  FewShot(const Task& task, const datasets::Table& table, int64_t count, uint64_t seed);

  /// The examples as they stand before the prompt of `scored`: context, joining text, right answer and a
  /// blank line each. Empty without examples.
  std::string before(const datasets::Row& scored) const;

 private:
  struct Example {
    datasets::Json row;
    std::string text;
  };
  std::vector<Example> examples_;  // count_ of them, and in a draw one in reserve where there is one
  size_t count_ = 0;
  bool fixed_ = false;  // the first rows as they stand
  std::string where_;   // the file, for messages
};

}  // namespace qeval::eval
