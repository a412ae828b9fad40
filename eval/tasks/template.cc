#include "eval/tasks/template.h"

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::eval {

bool is_template(std::string_view text) {
  return text.find("{{") != std::string_view::npos;
}

Template::Template(std::string_view text) {
  while (!text.empty()) {
    const size_t open = text.find("{{");
    Piece piece{.literal = std::string(text.substr(0, open)), .field = {}};
    text.remove_prefix(open == std::string_view::npos ? text.size() : open + 2);
    if (open != std::string_view::npos) {
      const size_t close = text.find("}}");
      if (close == std::string_view::npos) fail("a \"{{{{\" that no \"}}}}\" closes");
      piece.field = strip(text.substr(0, close));
      if (piece.field.empty()) fail("an empty \"{{{{}}}}\" where a field's path is expected");
      text.remove_prefix(close + 2);
    }
    pieces_.push_back(std::move(piece));
  }
}

std::string Template::fill(const datasets::Row& row) const {
  std::string out;
  for (const Piece& piece : pieces_) {
    out += piece.literal;
    if (piece.field.empty()) continue;
    const datasets::Json& value = row.at(piece.field);
    if (value.is_string()) {
      out += value.get_ref<const std::string&>();
    } else if (value.is_number_integer()) {
      out += value.dump();
    } else {
      row.fail_at(piece.field,
                  fmt::format("{} where a string or a whole number is expected", datasets::kind_of(value)));
    }
  }
  return out;
}

}  // namespace qeval::eval
