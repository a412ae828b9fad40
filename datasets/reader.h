#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "datasets/row.h"

namespace qeval::datasets {

/// Limits of a data file; what exceeds one is an error, never cut.
inline constexpr size_t kMaxLineBytes = 16U << 20U;  ///< one JSON line or one CSV record
inline constexpr size_t kMaxNesting = 64;            ///< objects and lists inside each other

/// The bytes of a data file and the name that messages give it.
struct DataText {
  std::string name;
  std::string text;
};

/// Reads `path` whole; Error naming it where that fails, or where it is a Git LFS pointer.
DataText read_text(const std::filesystem::path& path);

/// Name and SHA-256 of the bytes.
DataFile describe(const DataText& data);

/// JSONL: one JSON object a line, UTF-8, line ends LF or CRLF, an optional byte order mark in front; lines of
/// white space alone are skipped. Throws Error naming file and line for anything else: malformed UTF-8 or
/// JSON, a value that is no object, a key twice in one, a line over kMaxLineBytes, nesting over kMaxNesting,
/// a file without a row.
Table read_jsonl(const DataText& data);

/// One JSON object from checked text, under the same rules; Error `WHERE: …` naming what else was
/// found.
Json parse_object(std::string_view text, const std::string& where);

/// The CSV files of the original MMLU release: no header; question, four choices, letter A–D; fields quoted
/// as RFC 4180 has it, records may span lines. Rows come out in the columns of the JSONL copies: `question`,
/// `subject`, `choices`, `answer` (0–3). Errors name file and line.
Table read_mmlu_csv(const DataText& data, std::string_view subject);

/// Gives each row a field `label` read from a file of one label a line (PIQA's and Social IQa's
/// `-labels.lst`), and adds that file to the table's. As many labels as rows are expected; rows that carry a
/// label already are an error.
void attach_labels(Table& table, const DataText& labels);

/// Throws Error naming file and line where `data` is not UTF-8, and drops a byte order mark.
std::string_view checked_text(const DataText& data);

}  // namespace qeval::datasets
