#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/results/sample.h"

namespace qeval::eval {

/// "samples_TASK.jsonl" and "journal_TASK.jsonl" (a task under way). Throws Error for a task name that is no
/// file name: empty, over 200 bytes, or with a slash, a control character or bytes that are not UTF-8.
std::string samples_file(std::string_view task);
std::string journal_file(std::string_view task);

/// PREFIX_TASK followed by the extension (".jsonl"), for the other files that a task has; as strict.
std::string file_of_task(std::string_view prefix, std::string_view task, std::string_view extension);

/// A line of a samples file or journal.
struct SampleLine {
  Sample sample;
  std::string_view text;  ///< without the newline; valid during the call only
  std::string where;      ///< "samples_arc_easy.jsonl:12", with the folder as given
};

/// What follows the last newline of a file.
enum class Tail : uint8_t {
  refuse,  ///< an Error: the file was finished once
  drop,    ///< ignored: the writer was killed in the middle of a line
};

/// A line of any text file, without its newline.
struct TextLine {
  int64_t number;  ///< from 1
  std::string_view text;
  std::string where;  ///< "FILE:12"
};
/// Calls `visit` for every line of `text` in order and returns the length without a dropped tail. `file`
/// names it in messages.
uint64_t for_each_line(std::string_view text, const std::string& file, Tail tail,
                       const std::function<void(const TextLine&)>& visit);

/// Calls `visit` for every line in order, one in memory at a time, and returns the length of the file in
/// bytes without a dropped tail. Throws Error naming file and line for a line that is damaged.
uint64_t for_each_sample(const std::filesystem::path& path, Tail tail,
                         const std::function<void(SampleLine&&)>& visit);

/// The scores of a finished samples file; throws Error unless doc_id ascends and, where `sha256` is given
/// (the samples_hash of results.json), the file has it.
std::vector<Scores> read_scores(const std::filesystem::path& path, std::string_view sha256 = {});

/// All of it, text included; for small files and single looks.
std::vector<Sample> read_samples(const std::filesystem::path& path);

}  // namespace qeval::eval
