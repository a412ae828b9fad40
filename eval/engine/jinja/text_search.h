#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {

/// str.strip: white space, or the given characters, on either side.
std::string_view strip_characters(Runtime& runtime, std::string_view text,
                                  std::optional<std::string_view> characters, bool left, bool right);
/// str.replace; `most` < 0: all.
std::string replace_all(Runtime& runtime, std::string_view text, std::string_view old, std::string_view now,
                        int64_t most);
/// How often `wanted` stands in a text without overlap; the empty text stands between all characters.
int64_t count_of(std::string_view text, std::string_view wanted);
/// str.center, which leans to the left or the right by the parity of both lengths.
std::string center(Runtime& runtime, std::string_view text, int64_t width, std::string_view fill);

/// The part of a text between two indices in characters, which count from the end where they are negative.
struct Window {
  std::string_view text;
  int64_t characters_before = 0;
  bool outside = false;  ///< it begins behind its end: not even the empty text is found
};
Window window(std::string_view text, std::optional<int64_t> from, std::optional<int64_t> to);

/// str.split: at white space where there is no separator; `most` < 0: everywhere.
std::vector<std::string_view> split(Runtime& runtime, std::string_view text,
                                    std::optional<std::string_view> separator, int64_t most);
std::vector<std::string_view> split_right(Runtime& runtime, std::string_view text,
                                          std::optional<std::string_view> separator, int64_t most);
std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends);

}  // namespace qeval::jinja
