// One page: style, script and drawings inside it. The page forbids everything else to load or run (its
// content security policy names the hashes of its own style and script), so that a text that slipped through
// the escaping could not act either.

#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "base/hash.h"
#include "base/unicode.h"
#include "reports/format.h"
#include "reports/render/document.h"
#include "reports/render/html_assets.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

std::string base64(const std::string& bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8U | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? digits[group >> (18 - 6 * k) & 63U] : '=';
  }
  return out;
}

/// A source of a content security policy that allows this text alone.
std::string policy_hash(const std::string& text) {
  const std::string hex = sha256_hex(text);
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    unsigned value = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, value, 16);
    bytes += static_cast<char>(value);
  }
  return "'sha256-" + base64(bytes) + "'";
}

std::string sort_key(const TableCell& cell) {
  if (!cell.sort) return {};
  std::string value;
  if (std::isfinite(*cell.sort)) {
    char buffer[32];
    const auto result = std::to_chars(buffer, buffer + sizeof buffer, *cell.sort);
    value.assign(buffer, result.ptr);
  }
  return " data-v=\"" + value + "\"";
}

constexpr const char* figure_space = "\u2007";

/// "± 1.4" behind figure spaces, so that all standard errors of a column are of one width and the values in
/// front of them stand below each other by their decimals.
std::string padded_error(const std::string& error, size_t width) {
  if (width == 0) return {};
  const std::string_view number =
      error.empty() ? std::string_view() : std::string_view(error).substr(std::string_view("± ").size());
  std::string out = error.empty() ? std::string(" ") + figure_space + " " : " ± ";
  for (size_t i = error.empty() ? 0 : count_code_points(error); i < width; ++i) out += figure_space;
  if (error.empty()) return "<span class=\"e\">" + out + "</span>";
  return "<span class=\"e\">" + out + html_text(number) + "</span>";
}

std::string second_line(const TableCell& cell) {
  if (cell.second.empty()) return {};
  std::string text = cell.second;
  size_t stars = 0;
  while (text.ends_with('*')) {
    text.pop_back();
    ++stars;
  }
  while (text.ends_with(' ')) text.pop_back();
  const char* tone = cell.tone == Tone::worse ? " worse" : cell.tone == Tone::better ? " better" : "";
  std::string out = fmt::format("<span class=\"d{}\">{}", tone, html_text(text));
  if (stars > 0) out += fmt::format("<span class=\"m\">{}</span>", std::string(stars, '*'));
  return out + "</span>";
}

std::string row_class(const Table& table, const Report& report, size_t row) {
  if (table.id != "scores") return {};
  if (report.rows[row].is_baseline) return " class=\"base\"";
  const bool new_scheme =
      row > 0 && report.rows[row].scheme != report.rows[row - 1].scheme && !report.rows[row - 1].is_baseline;
  return new_scheme ? " class=\"group\"" : "";
}

/// On a narrow screen the table of scores has room for one column of words: scheme and arithmetic then stand
/// below the method.
std::string narrow_line(const Table& table, size_t row) {
  if (table.id != "scores") return {};
  const std::string scheme = table.rows[row][1].text, arithmetic = table.rows[row][2].text;
  return fmt::format("<span class=\"d narrow\">{}{}</span>", scheme == absent ? "" : html_text(scheme) + ", ",
                     html_text(arithmetic));
}

std::string table_html(const Table& table, const Report& report) {
  std::vector<size_t> widths(table.headings.size(), 0);
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], count_code_points(row[i].error));
  }
  std::string out = fmt::format(
      "<div class=\"wide\" tabindex=\"0\">\n<table class=\"sortable\" id=\"table-{}\">\n<thead><tr>",
      html_text(table.id));
  for (const Heading& heading : table.headings) {
    out += fmt::format("<th scope=\"col\"{}>{}", heading.numeric ? " class=\"n\"" : "",
                       html_text(heading.title));
    if (!heading.detail.empty()) out += "<span class=\"detail\">" + html_text(heading.detail) + "</span>";
    out += "</th>";
  }
  out += "</tr></thead>\n<tbody>\n";
  for (size_t r = 0; r < table.rows.size(); ++r) {
    out += "<tr" + row_class(table, report, r) + ">";
    for (size_t i = 0; i < table.rows[r].size(); ++i) {
      const TableCell& cell = table.rows[r][i];
      out += fmt::format("<td{}{}>{}{}{}{}</td>", table.headings[i].numeric ? " class=\"n\"" : "",
                         sort_key(cell), html_text(cell.text), padded_error(cell.error, widths[i]),
                         second_line(cell), i == 0 ? narrow_line(table, r) : "");
    }
    out += "</tr>\n";
  }
  out += "</tbody>\n</table>\n</div>\n";
  if (!table.caption.empty()) out += "<p class=\"caption\">" + html_text(table.caption) + "</p>\n";
  return out;
}

std::string log_likelihood(double value) {
  return score_text(value, Unit::bits);  // three decimals
}

std::string option(const std::string& value, const std::string& text) {
  return fmt::format("<option value=\"{}\">{}</option>", value, html_text(clean(text, 60)));
}

std::string filters(const Report& report) {
  std::vector<bool> rows(report.rows.size()), columns(report.columns.size());
  for (const Example& example : report.examples) rows[example.row] = columns[example.column] = true;
  std::string out =
      "<div class=\"filters\" hidden=\"\">\n<label>Run <select name=\"run\">" + option("", "all");
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i]) out += option(std::to_string(i), report.rows[i].label);
  }
  out += "</select></label>\n<label>Task <select name=\"task\">" + option("", "all");
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i]) out += option(std::to_string(i), report.columns[i].title);
  }
  return out + "</select></label>\n<label>Answer <select name=\"change\">" + option("", "lost or gained") +
         option("lost", "lost") + option("gained", "gained") + option("runaway", "no longer ends") +
         "</select></label>\n<output></output>\n</div>\n";
}

/// A text, its part behind the common beginning marked.
std::string marked_text(const std::string& text, size_t common) {
  const std::string rest = text.substr(common);
  return html_text(text.substr(0, common)) + (rest.empty() ? "" : "<mark>" + html_text(rest) + "</mark>");
}

std::string written_html(const Example::Written& written, const std::string& label) {
  const auto row = [&](const std::string& who, const std::string& text, const std::string& answer) {
    return fmt::format("<tr><td>{}</td><td class=\"question\">{}</td><td>{}</td></tr>\n", who,
                       marked_text(text, written.common), html_text(answer));
  };
  return fmt::format(
             "<p>Right answer: {}</p>\n<div class=\"wide\"><table><thead><tr><th scope=\"col\"></th><th "
             "scope=\"col\">Text, from its first difference on marked</th><th scope=\"col\">Taken out of "
             "it</th></tr></thead>\n<tbody>\n",
             html_text(written.target)) +
         row("Baseline", written.base, written.base_answer) +
         row(label, written.other, written.other_answer) + "</tbody></table></div>\n</details>\n";
}

std::string example_html(const Report& report, const Example& example) {
  const char* change = example.runaway ? "runaway" : example.gained ? "gained" : "lost";
  const std::string label = html_text(clean(report.rows[example.row].label, 80));
  std::string out = fmt::format(
      "<details class=\"example\" data-run=\"{}\" data-task=\"{}\" data-change=\"{}\">\n<summary>{} {} <span "
      "class=\"small\">{} by {} · {}</span></summary>\n",
      example.row, example.column, change, html_text(clean(task_title(example.task), 60)), example.doc_id,
      example.runaway ? "no longer ended" : change, label, html_text(clean(example.question, 90)));
  if (!example.question.empty()) out += "<p class=\"question\">" + html_text(example.question) + "</p>\n";
  if (example.written) return out + written_html(*example.written, label);
  out += fmt::format(
      "<div class=\"wide\"><table><thead><tr><th scope=\"col\"></th><th scope=\"col\">Choice</th><th "
      "scope=\"col\" class=\"n\">Baseline<span class=\"detail\">log-likelihood</span></th>"
      "<th scope=\"col\" class=\"n\">{}<span class=\"detail\">log-likelihood</span></th><th "
      "scope=\"col\">Taken by</th></tr></thead>\n<tbody>\n",
      label);
  for (const Choice& choice : example.choices) {
    const char* taken = choice.chosen_by_base && choice.chosen_by_other ? "both"
                        : choice.chosen_by_base                         ? "baseline"
                        : choice.chosen_by_other                        ? "this run"
                                                                        : "";
    out += fmt::format(
        "<tr{}><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
        choice.gold ? " class=\"gold\"" : "", choice.gold ? "✓" : "", html_text(choice.text),
        log_likelihood(choice.base), log_likelihood(choice.other), taken);
  }
  return out + "</tbody></table></div>\n</details>\n";
}

std::string examples_html(const Report& report) {
  const auto runaways = std::ranges::count_if(report.examples, &Example::runaway);
  std::string out = fmt::format(
      "<p class=\"caption\">{} of {} changed answers, with their text{}: ✓ is the right choice. A choice is "
      "taken by the "
      "task's metric: acc_norm divides the log-likelihood by the choice's length.</p>\n",
      count_text(std::ssize(report.examples) - runaways), count_text(report.flips),
      runaways > 0 ? fmt::format(", and {} texts that no longer end", runaways) : "");
  out += filters(report);
  for (const Example& example : report.examples) out += example_html(report, example);
  return out;
}

std::string section_html(const Section& section, const Report& report) {
  std::string out =
      fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n", html_text(section.id), html_text(section.heading));
  for (const std::string& paragraph : section.paragraphs) out += "<p>" + html_text(paragraph) + "</p>\n";
  if (!section.list.empty()) out += "<ul>\n";
  for (const std::string& item : section.list) out += "<li>" + html_text(item) + "</li>\n";
  if (!section.list.empty()) out += "</ul>\n";
  if (!section.plots.empty()) out += "<div class=\"plots\">\n";
  for (const Plot& plot : section.plots) out += "<figure>\n" + inline_svg(plot) + "</figure>\n";
  if (!section.plots.empty()) out += "</div>\n";
  for (const Table& table : section.tables) out += table_html(table, report);
  for (const Section::Code& code : section.code)
    out += "<p class=\"small\">" + html_text(clean(code.label)) + "</p>\n<pre>" + html_text(code.text) +
           "</pre>\n";
  if (section.examples) out += examples_html(report);
  return out + "</section>\n";
}

}  // namespace

std::string to_html(const Document& document, const Report& report) {
  const std::string style = std::string(page_style) + plot_style(), script = page_script;
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n";
  out += "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src " +
         policy_hash(style) + "; script-src " + policy_hash(script) + "\"/>\n";
  out += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>" +
         html_text(document.title) + "</title>\n";
  out += "<style>" + style + "</style>\n</head>\n<body>\n<header>\n<h1>" + html_text(document.title) +
         "</h1>\n<ul class=\"verdict\">\n";
  for (const std::string& sentence : document.verdict) out += "<li>" + html_text(sentence) + "</li>\n";
  out += "</ul>\n<nav>";
  for (const Section& section : document.sections)
    out += fmt::format("<a href=\"#{}\">{}</a>\n", html_text(section.id), html_text(section.heading));
  out += "</nav>\n</header>\n<main>\n";
  for (const Section& section : document.sections) out += section_html(section, report);
  out += "</main>\n<footer class=\"small\">qeval " + html_text(clean(report.version, 40)) + ". " +
         html_text(document.facts) + "</footer>\n<script>" + script + "</script>\n</body>\n</html>\n";
  return out;
}

}  // namespace qeval::reports
