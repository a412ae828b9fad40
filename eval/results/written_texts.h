#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/results/compare.h"

namespace qeval::eval {

/// What a model wrote for one document.
struct WrittenText {
  int64_t doc_id = 0;
  std::string text;    ///< cut at the stop strings
  int64_t tokens = 0;  ///< generated, the end included
  bool ended = false;  ///< by a stop string or an end token, not for want of more tokens
};

/// How far the texts agree that two runs wrote for the same prompts, and what habits differ. Lengths of texts
/// are code points.
struct WrittenTexts {
  int64_t documents = 0;
  int64_t equal = 0;  ///< documents with the same text in both
  double agreement =
      0;  ///< mean over documents of the common prefix / the longer text; 1 where both are empty
  /// Median length of the common prefix over the documents whose texts differ; nothing where none does.
  std::optional<double> first_difference;
  /// In this order: `ended`, texts that ended by themselves and `free_of_loops`, texts that do not end in a
  /// loop (ends_in_loop), right or wrong per document; `tokens`, generated, a mean.
  std::vector<MetricComparison> habits;
};

/// Whether the end of a text says one thing over and over, as broken models do: three times or more, the last
/// time perhaps not to its end, and 60 code points or more in all. Linear in the text's length.
bool ends_in_loop(std::string_view text);

/// Length in bytes of the longest common prefix of whole code points.
size_t common_prefix(std::string_view a, std::string_view b);

/// Both of the same documents in ascending order, at least one.
WrittenTexts compare_texts(std::span<const WrittenText> base, std::span<const WrittenText> other,
                           const BootstrapOptions& options = {});

/// The texts of a samples file of a task that generates.
std::vector<WrittenText> read_texts(const std::filesystem::path& samples);

}  // namespace qeval::eval
