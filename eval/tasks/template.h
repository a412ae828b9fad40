#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "datasets/row.h"

namespace qeval::eval {

/// A text with places for a row's fields: "Question: {{question}}\nAnswer:". A place holds a field path
/// (datasets::Row) of a string or a whole number. There is no escape, no condition and no loop.
class Template {
 public:
  /// Throws Error, its message without a location, for a place that is empty or never closed.
  explicit Template(std::string_view text);

  /// Error naming the row's file, line and field where a field is missing or is neither string nor whole
  /// number.
  std::string fill(const datasets::Row& row) const;

 private:
  struct Piece {
    std::string literal;
    std::string field;  // what follows the literal; empty: nothing
  };
  std::vector<Piece> pieces_;
};

/// Whether the text has a place for a field.
bool is_template(std::string_view text);

}  // namespace qeval::eval
