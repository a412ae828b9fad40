#include <fmt/format.h>

#include "reports/format.h"
#include "reports/render/document.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

std::string latex_cell(const TableCell& cell) {
  std::string out = latex_text(cell.text);
  if (!cell.error.empty()) out += " {\\scriptsize " + latex_text(cell.error) + "}";
  if (cell.second.empty()) return out;
  std::string second = cell.second, stars;
  while (second.ends_with('*')) {
    stars += '*';
    second.pop_back();
  }
  while (second.ends_with(' ')) second.pop_back();
  out += " {\\scriptsize (" + latex_text(second) + (stars.empty() ? "" : "$^{" + stars + "}$") + ")}";
  return out;
}

}  // namespace

std::string to_latex(const Report& report) {
  const Table table = score_table(report);
  std::string out = "% Needs \\usepackage{booktabs}.\n\\begin{table}\n\\centering\n\\begin{tabular}{";
  for (const Heading& heading : table.headings) out += heading.numeric ? 'r' : 'l';
  out += "}\n\\toprule\n";
  std::string details;
  for (size_t i = 0; i < table.headings.size(); ++i) {
    const char* between = i > 0 ? " & " : "";
    out += between + latex_text(table.headings[i].title);
    details += between;
    if (!table.headings[i].detail.empty())
      details += "{\\scriptsize " + latex_text(table.headings[i].detail) + "}";
  }
  out += " \\\\\n" + details + " \\\\\n\\midrule\n";
  for (size_t r = 0; r < table.rows.size(); ++r) {
    // A rule between schemes, as papers set them apart.
    if (r > 0 && table.rows[r][1].text != table.rows[r - 1][1].text) out += "\\midrule\n";
    for (size_t i = 0; i < table.rows[r].size(); ++i)
      out += (i > 0 ? " & " : "") + latex_cell(table.rows[r][i]);
    out += " \\\\\n";
  }
  return out + "\\bottomrule\n\\end{tabular}\n\\caption{" + latex_text(report.title) + ". " +
         latex_text(table.caption) + "}\n\\end{table}\n";
}

}  // namespace qeval::reports
