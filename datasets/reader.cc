#include "datasets/reader.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/strict_json.h"
#include "base/unicode.h"

namespace qeval::datasets {
namespace {

/// Hands out the lines of a text with their numbers, without their ends (LF or CRLF).
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}

  bool next(std::string_view& line) {
    if (rest_.empty()) return false;
    const size_t end = rest_.find('\n');
    line = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    ++number_;
    return true;
  }
  int64_t number() const { return number_; }

 private:
  std::string_view rest_;
  int64_t number_ = 0;
};

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\f\v") == std::string_view::npos;
}

[[noreturn]] void fail_line(const std::string& file, int64_t line, std::string_view message) {
  fail("{}:{}: {}", printable(file, 4096), line, message);
}

/// Splits RFC 4180 records: fields between commas, quotes around those that hold commas, quotes or line ends.
class CsvRecords {
 public:
  CsvRecords(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  /// The next record and the line it starts on; blank lines are skipped.
  bool next(std::vector<std::string>& fields, int64_t& line) {
    while (at_ < text_.size() && skip_line_end()) {
    }
    if (at_ >= text_.size()) return false;
    fields.clear();
    line = line_;
    const size_t start = at_;
    do {
      fields.push_back(field());
      if (at_ - start > kMaxLineBytes)
        fail_line(file_, line, fmt::format("a record over {} bytes", kMaxLineBytes));
    } while (take(','));
    if (at_ < text_.size() && !skip_line_end()) fail_line(file_, line_, "text behind a closing quote");
    return true;
  }

 private:
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool skip_line_end() {
    const size_t length = text_.substr(at_).starts_with("\r\n") ? 2 : (text_[at_] == '\n' ? 1 : 0);
    at_ += length;
    line_ += length > 0;
    return length > 0;
  }
  std::string field() {
    if (!take('"')) {
      const size_t start = at_;
      at_ = std::min(text_.find_first_of(",\n", at_), text_.size());
      const bool ends_line = at_ < text_.size() && text_[at_] == '\n';
      if (ends_line && at_ > start && text_[at_ - 1] == '\r') --at_;
      return std::string(text_.substr(start, at_ - start));
    }
    const int64_t opened = line_;
    std::string out;
    while (true) {
      const size_t quote = text_.find('"', at_);
      if (quote == std::string_view::npos) fail_line(file_, opened, "a quote that is never closed");
      const std::string_view piece = text_.substr(at_, quote - at_);
      line_ += std::count(piece.begin(), piece.end(), '\n');
      out += piece;
      at_ = quote + 1;
      if (!take('"')) return out;
      out += '"';
    }
  }

  std::string_view text_;
  const std::string& file_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

DataText read_text(const std::filesystem::path& path) {
  DataText data{path.string(), read_file(path)};
  return data;
}

DataFile describe(const DataText& data) {
  return {data.name, sha256_hex(data.text)};
}

std::string_view checked_text(const DataText& data) {
  std::string_view text = data.text;
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    const std::string_view before = text.substr(0, bad);
    const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    fail_line(data.name, 1 + std::count(before.begin(), before.end(), '\n'),
              fmt::format("byte {} of the line (0x{:02x}) is not UTF-8", bad - line_start + 1,
                          static_cast<unsigned char>(text[bad])));
  }
  return without_byte_order_mark(text);
}

Json parse_object(std::string_view text, const std::string& where) {
  Json value = parse_ordered_json(text, where, kMaxNesting);
  if (!value.is_object()) {
    fail("{}: {} where a JSON object is expected", printable(where, 4096), kind_of(value));
  }
  return value;
}

Table read_jsonl(const DataText& data) {
  const auto file = std::make_shared<const std::string>(data.name);
  Table table{.rows = {}, .files = {describe(data)}};
  Lines lines(checked_text(data));
  std::string_view line;
  while (lines.next(line)) {
    if (line.size() > kMaxLineBytes) {
      fail_line(*file, lines.number(),
                fmt::format("a line of {} bytes; {} are accepted", line.size(), kMaxLineBytes));
    }
    if (is_blank(line)) continue;
    table.rows.emplace_back(parse_object(line, fmt::format("{}:{}", *file, lines.number())), file,
                            lines.number());
  }
  if (table.rows.empty()) fail("{}: no rows; one JSON object a line is expected", printable(data.name, 4096));
  return table;
}

Table read_mmlu_csv(const DataText& data, std::string_view subject) {
  constexpr size_t kColumns = 6;
  const auto file = std::make_shared<const std::string>(data.name);
  Table table{.rows = {}, .files = {describe(data)}};
  CsvRecords records(checked_text(data), *file);
  std::vector<std::string> fields;
  int64_t line = 0;
  while (records.next(fields, line)) {
    if (fields.size() != kColumns) {
      fail_line(*file, line,
                fmt::format("{} columns where {} are expected: question, four choices, answer letter",
                            fields.size(), kColumns));
    }
    const std::string& letter = fields[5];
    if (letter.size() != 1 || letter[0] < 'A' || letter[0] > 'D') {
      fail_line(*file, line,
                fmt::format("field \"answer\": \"{}\" is none of A to D", printable(letter, 40)));
    }
    Json row;
    row["question"] = fields[0];
    row["subject"] = subject;
    row["choices"] = std::vector<std::string>(fields.begin() + 1, fields.begin() + 5);
    row["answer"] = letter[0] - 'A';
    table.rows.emplace_back(std::move(row), file, line);
  }
  if (table.rows.empty()) fail("{}: no rows", printable(data.name, 4096));
  return table;
}

void attach_labels(Table& table, const DataText& labels) {
  std::vector<std::string> values;
  Lines lines(checked_text(labels));
  std::string_view line;
  while (lines.next(line)) {
    if (!is_blank(line)) values.emplace_back(strip(line));
  }
  if (values.size() != table.rows.size()) {
    fail("{}: {} labels for the {} rows of {}", printable(labels.name, 4096), values.size(),
         table.rows.size(), printable(table.files.front().path, 4096));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (table.rows[i].has("label")) {
      table.rows[i].fail_at("label", fmt::format("given both here and in {}", printable(labels.name, 4096)));
    }
    table.rows[i].fields()["label"] = values[i];
  }
  table.files.push_back(describe(labels));
}

}  // namespace qeval::datasets
