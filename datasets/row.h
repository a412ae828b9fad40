#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval::datasets {

/// JSON whose objects keep the order of the file.
using Json = nlohmann::ordered_json;

/// A file that was read, for the results: a score belongs to these bytes.
struct DataFile {
  std::string path;    ///< as opened; "sample_qa/test.jsonl (shipped)" for data inside the program
  std::string sha256;  ///< of its bytes, 64 hexadecimal digits
};

/// One row of a data file, which remembers where it stands: every accessor that does not find what it was
/// asked for throws Error `FILE:LINE: field "F": what is wrong and what would be accepted`.
///
/// A field is named by a dotted path: `choices.text`, `mc1_targets.labels`, `options.0` (a number indexes a
/// list).
class Row {
 public:
  Row(Json fields, std::shared_ptr<const std::string> file, int64_t line)
      : fields_(std::move(fields)), file_(std::move(file)), line_(line) {}

  const Json& fields() const { return fields_; }
  Json& fields() { return fields_; }
  int64_t line() const { return line_; }  ///< from 1, of the file as an editor counts
  const std::string& file() const { return *file_; }

  /// The value at `path`; nullptr where a step is missing.
  const Json* find(std::string_view path) const;
  bool has(std::string_view path) const { return find(path) != nullptr; }
  /// As find(), but a missing field is an error.
  const Json& at(std::string_view path) const;

  /// A string, as it stands.
  const std::string& text(std::string_view path) const;
  /// A list of at least one string. Where a step of the path meets a list of objects, the rest of the path is
  /// read from each: `choices.text` accepts both {"text": [..]} and [{"text": ..}, ..].
  std::vector<std::string> texts(std::string_view path) const;
  /// A whole number, or a string of digits, white space around them aside (public data sets spell labels so),
  /// or a truth value as 0 or 1.
  int64_t integer(std::string_view path) const;
  /// integer() − first, checked to lie in [0, count): the position of an answer.
  int64_t index(std::string_view path, int64_t count, int64_t first = 0) const;

  /// Throws the error of a field that is there but unusable; `message` is the text behind the field's name.
  [[noreturn]] void fail_at(std::string_view path, std::string_view message) const;

 private:
  Json fields_;
  std::shared_ptr<const std::string> file_;
  int64_t line_ = 0;
};

/// The rows of one split and the files that they came from.
struct Table {
  std::vector<Row> rows;
  std::vector<DataFile> files;
};

/// "a string", "a list", …: the kind of a JSON value as messages name it.
std::string_view kind_of(const Json& value);

}  // namespace qeval::datasets
