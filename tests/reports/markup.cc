#include "tests/reports/markup.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace qeval::reports {
namespace {

constexpr std::array<std::pair<std::string_view, char>, 5> kEntities{
    {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&#39;", '\''}}};

bool is_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == ':';
  });
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Markup read() {
    for (const char c : text_) {
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n') return fail("a control character");
    }
    if (text_.starts_with("<!DOCTYPE html>")) at_ = 15;
    while (at_ < text_.size() && out_.error.empty()) {
      if (text_[at_] == '<') {
        tag();
      } else {
        characters();
      }
    }
    if (out_.error.empty() && !open_.empty()) fail(fmt::format("unclosed {}", open_.back()));
    return out_;
  }

 private:
  Markup fail(const std::string& what) {
    if (out_.error.empty()) out_.error = fmt::format("{} at: {}", what, text_.substr(at_, 60));
    return out_;
  }

  std::string unescaped(std::string_view text) {
    std::string out;
    while (!text.empty()) {
      if (text[0] != '&') {
        if (text[0] == '<') fail("< in text");
        out += text[0];
        text.remove_prefix(1);
        continue;
      }
      const auto found =
          std::ranges::find_if(kEntities, [&](const auto& entity) { return text.starts_with(entity.first); });
      if (found == kEntities.end()) {
        fail("an entity that is none");
        return out;
      }
      out += found->second;
      text.remove_prefix(found->first.size());
    }
    return out;
  }

  void characters() {
    const size_t end = std::min(text_.find('<', at_), text_.size());
    const std::string text = unescaped(text_.substr(at_, end - at_));
    if (!open_.empty() && out_.elements.back().text.empty()) out_.elements.back().text = text;
    at_ = end;
  }

  void tag() {
    if (text_.substr(at_).starts_with("</")) {
      const size_t end = text_.find('>', at_);
      const std::string name(text_.substr(at_ + 2, end == std::string_view::npos ? 0 : end - at_ - 2));
      if (open_.empty() || open_.back() != name) {
        fail("a closing tag of another element");
        return;
      }
      open_.pop_back();
      at_ = end + 1;
      return;
    }
    size_t end = at_ + 1;
    while (end < text_.size() && is_name(text_.substr(end, 1))) ++end;
    Markup::Element element{std::string(text_.substr(at_ + 1, end - at_ - 1)), {}, {}};
    if (!is_name(element.name)) {
      fail("no name of an element");
      return;
    }
    while (true) {
      const size_t begin = text_.find_first_not_of(" \n", end);
      if (begin == std::string_view::npos) {
        fail("an unfinished tag");
        return;
      }
      if (text_[begin] == '>' || text_.substr(begin).starts_with("/>")) {
        end = begin;
        break;
      }
      const size_t equals = text_.find("=\"", begin);
      const size_t quote = equals == std::string_view::npos ? equals : text_.find('"', equals + 2);
      if (begin == end || quote == std::string_view::npos || !is_name(text_.substr(begin, equals - begin))) {
        fail("an attribute that is none");
        return;
      }
      element.attributes.emplace_back(text_.substr(begin, equals - begin),
                                      unescaped(text_.substr(equals + 2, quote - equals - 2)));
      end = quote + 1;
    }
    const bool closed = text_[end] == '/';
    at_ = end + (closed ? 2 : 1);
    out_.elements.push_back(element);
    if (closed) return;
    open_.push_back(element.name);
    if (element.name == "script" || element.name == "style") {  // raw text
      const size_t close = text_.find(fmt::format("</{}>", element.name), at_);
      if (close == std::string_view::npos) {
        fail(fmt::format("unclosed {}", element.name));
        return;
      }
      out_.elements.back().text = text_.substr(at_, close - at_);
      at_ = close;
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<std::string> open_;
  Markup out_;
};

std::string replaced(std::string_view text, std::string_view what, std::string_view by) {
  std::string out;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what)) {
    out.append(text.substr(0, at)).append(by);
    text.remove_prefix(at + what.size());
  }
  return out.append(text);
}

/// The text of a piece of HTML: blocks become line breaks, tags nothing.
std::string plain(std::string_view html) {
  std::string out;
  for (size_t i = 0; i < html.size();) {
    if (html[i] != '<') {
      out += html[i++];
      continue;
    }
    if (html.substr(i).starts_with("<span class=\"d")) out += '\n';
    i = html.find('>', i) + 1;
  }
  for (const auto& [entity, c] : kEntities) out = replaced(out, entity, std::string(1, c));
  return replaced(out, "\u2007", "");
}

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(' ');
  return first == std::string_view::npos
             ? ""
             : std::string(text.substr(first, text.find_last_not_of(' ') - first + 1));
}

}  // namespace

std::vector<std::string> Markup::texts(std::string_view element) const {
  std::vector<std::string> out;
  for (const Element& one : elements) {
    if (one.name == element) out.push_back(one.text);
  }
  return out;
}

Markup parse_markup(std::string_view text) {
  return Reader(text).read();
}

std::vector<std::vector<std::string>> html_table(std::string_view html, const std::string& id) {
  std::vector<std::vector<std::string>> out;
  const size_t begin = html.find(fmt::format("id=\"table-{}\"", id));
  if (begin == std::string_view::npos) return out;
  std::string_view table = html.substr(begin, html.find("</table>", begin) - begin);
  for (size_t row = table.find("<tr"); row != std::string_view::npos; row = table.find("<tr", row + 1)) {
    const std::string_view line = table.substr(row, table.find("</tr>", row) - row);
    out.emplace_back();
    for (size_t i = 3; i < line.size(); ++i) {
      if (!line.substr(i).starts_with("<td") && !line.substr(i).starts_with("<th ")) continue;
      const size_t end = std::min(line.find("</td>", i), line.find("</th>", i));
      out.back().push_back(trimmed(plain(line.substr(i, end - i))));
    }
  }
  return out;
}

std::vector<std::vector<std::vector<std::string>>> markdown_tables(std::string_view markdown) {
  std::vector<std::vector<std::vector<std::string>>> out;
  bool inside = false, fenced = false;
  for (size_t begin = 0; begin < markdown.size();) {
    const size_t end = std::min(markdown.find('\n', begin), markdown.size());
    const std::string_view line = markdown.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("```")) fenced = !fenced;
    if (fenced || !line.starts_with("|")) {
      inside = false;
      continue;
    }
    if (!inside) out.emplace_back();
    inside = true;
    std::vector<std::string> cells;
    for (size_t i = 1; i < line.size();) {
      const size_t bar = std::min(line.find('|', i), line.size());
      cells.push_back(trimmed(line.substr(i, bar - i)));
      i = bar + 1;
    }
    const bool rule = std::ranges::all_of(cells, [](const std::string& cell) {
      return !cell.empty() && cell.find_first_not_of(":-") == std::string::npos;
    });
    if (!rule) out.back().push_back(std::move(cells));
  }
  return out;
}

}  // namespace qeval::reports
