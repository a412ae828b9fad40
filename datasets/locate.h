#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace qeval::datasets {

/// Finds the file of a split; an empty path where there is none. `patterns` are paths below `data`, tried in
/// order, in which `{split}` stands for the split's name and `{Split}` for the same capitalised:
/// {"arc_easy/{split}.jsonl", "arc_easy/ARC-Easy-{Split}.jsonl"}. A split is found under its other usual
/// spellings too: validation as valid, val and (unless `dev_is_other`, as in MMLU, where dev is a split of
/// its own) dev; train as train_xl.
std::filesystem::path find_split(const std::filesystem::path& data, std::span<const std::string> patterns,
                                 std::string_view split, bool dev_is_other);

/// As find_split(), but throws Error where there is none, naming the path tried first and, where another
/// split's file is there, the `--split` that reads it.
std::filesystem::path locate_split(const std::filesystem::path& data, std::span<const std::string> patterns,
                                   std::string_view split, bool dev_is_other);

/// The path that one pattern gives for a split.
std::filesystem::path path_of_split(const std::filesystem::path& data, const std::string& pattern,
                                    std::string_view split);

/// The file beside `rows` that holds its labels (`valid.jsonl` → `valid-labels.lst`); empty where there is
/// none.
std::filesystem::path locate_labels(const std::filesystem::path& rows);

}  // namespace qeval::datasets
