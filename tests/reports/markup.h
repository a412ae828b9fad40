#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qeval::reports {

/// What a strict reader of HTML in XML's spelling, or of SVG, makes of a text.
struct Markup {
  std::string error;  ///< the first violation of well-formedness, with what stands there; empty: none
  struct Element {
    std::string name;
    std::vector<std::pair<std::string, std::string>> attributes;  ///< values unescaped
    std::string text;                                             ///< its own text up to its first child
  };
  std::vector<Element> elements;  ///< in document order

  std::vector<std::string> texts(std::string_view element) const;
};

Markup parse_markup(std::string_view text);

/// The cells of the table whose id is `id`, row by row, headings first; all text within a cell, line by line.
std::vector<std::vector<std::string>> html_table(std::string_view html, const std::string& id);

/// The pipe tables of a Markdown text, row by row, without the rule; the cells as they stand, trimmed.
std::vector<std::vector<std::vector<std::string>>> markdown_tables(std::string_view markdown);

}  // namespace qeval::reports
