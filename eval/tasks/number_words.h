#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "eval/tasks/python_pattern.h"

namespace qeval::eval {

/// English numbers in words, as the harness's NumberParseRegexFilter looks for them.
const PythonPattern& number_words_pattern();

/// The number in digits that the Python library word2number 1.1 reads from words, nothing where it refuses
/// them (there the harness stops).
std::optional<std::string> number_of_words(std::string_view words);

}  // namespace qeval::eval
