// GitHub-flavoured Markdown. Every text goes through markdown_text() or into a fenced block.

#include <fmt/format.h>

#include "reports/render/document.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

std::string markdown_cell(const TableCell& cell) {
  std::string out = markdown_inline(cell.text);
  if (!cell.error.empty()) out.append(" ").append(markdown_inline(cell.error));
  if (!cell.second.empty()) out.append("<br>").append(markdown_inline(cell.second));
  return out;
}

std::string table_text(const Table& table) {
  std::string out = "|", rule = "|";
  for (const Heading& heading : table.headings) {
    const std::string detail =
        heading.detail.empty() ? "" : fmt::format("<br>{}", markdown_inline(heading.detail));
    out += fmt::format(" {}{} |", markdown_inline(heading.title), detail);
    rule += heading.numeric ? " ---: |" : " :--- |";
  }
  out += "\n" + rule + "\n";
  for (const auto& row : table.rows) {
    out += "|";
    for (const TableCell& cell : row) out += fmt::format(" {} |", markdown_cell(cell));
    out += "\n";
  }
  return out + "\n" + (table.caption.empty() ? "" : markdown_text(table.caption) + "\n\n");
}

/// A relative address: anything that could end it or act in it is percent-encoded.
std::string address(const std::string& file) {
  std::string out;
  for (const char c : file) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

std::string to_markdown(const Document& document, const std::string& plot_stem) {
  std::string out = fmt::format("# {}\n\n", markdown_text(document.title));
  for (const std::string& sentence : document.verdict) out += fmt::format("- {}\n", markdown_text(sentence));
  out += "\n";
  for (const Section& section : document.sections) {
    out += fmt::format("## {}\n\n", markdown_text(section.heading));
    for (const std::string& paragraph : section.paragraphs) out += markdown_text(paragraph) + "\n\n";
    for (const std::string& item : section.list) out += fmt::format("- {}\n", markdown_text(item));
    if (!section.list.empty()) out += "\n";
    for (const Plot& plot : section.plots)
      out += fmt::format("![{}]({})\n", markdown_text(clean(plot.title, 100)),
                         address(plot_file(plot_stem, plot)));
    if (!section.plots.empty()) out += "\n";
    for (const Table& table : section.tables) out += table_text(table);
    for (const Section::Code& code : section.code)
      out += markdown_text(code.label) + ":\n\n" + markdown_code_block(code.text) + "\n";
  }
  while (out.ends_with("\n\n")) out.pop_back();
  return out;
}

}  // namespace qeval::reports
