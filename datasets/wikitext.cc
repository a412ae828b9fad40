#include "datasets/wikitext.h"

#include <algorithm>

#include "base/unicode.h"

namespace qeval::datasets {
namespace {

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  size_t start = 0;
  for (size_t at = 0; (at = text.find(from, start)) != std::string_view::npos; start = at + from.size()) {
    out += text.substr(start, at - start);
    out += to;
  }
  return out += text.substr(start);
}

/// `( X )` → `(X)`, X ending at the first closer. Once no closer follows, no later opener has one either.
std::string tighten(std::string_view text, char opener, char closer) {
  std::string out;
  out.reserve(text.size());
  size_t start = 0;
  while (true) {
    const size_t open = text.find(opener, start);
    const size_t close = open == std::string_view::npos ? open : text.find(closer, open + 1);
    if (close == std::string_view::npos) return out += text.substr(start);
    out += text.substr(start, open + 1 - start);
    out += strip(text.substr(open + 1, close - open - 1));
    out += closer;
    start = close + 1;
  }
}

/// `/' 5/` → `/'[0-9]/`: a substitution of the harness that puts its own pattern in the text.
std::string replace_digit_contractions(std::string_view text) {
  constexpr std::string_view kBefore = "/' ";
  std::string out;
  size_t start = 0;
  for (size_t at = 0; (at = text.find(kBefore, at)) != std::string_view::npos;) {
    const std::string_view digit = text.substr(at + kBefore.size(), 2);
    if (digit.size() == 2 && digit[0] >= '0' && digit[0] <= '9' && digit[1] == '/') {
      out += text.substr(start, at - start);
      out += "/'[0-9]/";
      start = at = at + kBefore.size() + digit.size();
    } else {
      ++at;
    }
  }
  return out += text.substr(start);
}

bool is_title(std::string_view line) {
  const std::string joined = replace_all(replace_all(line, "= = =", "==="), "= =", "==");
  const std::string_view heading = strip(joined);
  return heading.starts_with("= ") && heading.ends_with(" =");
}

}  // namespace

std::vector<Page> whole_page(std::string_view raw) {
  if (strip(raw).empty()) return {};
  return {{with_unix_line_ends(raw), 1}};
}

std::vector<Page> wikitext_pages(std::string_view raw) {
  const std::string unix_ends = with_unix_line_ends(raw);
  std::string_view text = unix_ends;
  if (text.ends_with('\n')) text.remove_suffix(1);
  std::vector<Page> pages;
  size_t page_start = 0;
  int64_t page_line = 1;
  int64_t line = 1;
  const auto close_page = [&](size_t end) {
    const std::string_view page = text.substr(page_start, end - page_start);
    if (!strip(page).empty()) pages.push_back({std::string(page), page_line});
  };
  for (size_t start = 0; start < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', start), text.size());
    if (start > page_start && is_title(text.substr(start, end - start))) {
      close_page(start - 1);
      page_start = start;
      page_line = line;
    }
    start = end + 1;
  }
  close_page(text.size());
  return pages;
}

std::string wikitext_detokenize(std::string_view page) {
  std::string text = replace_all(page, "s '", "s'");
  text = replace_digit_contractions(text);
  text = replace_all(text, " @-@ ", "-");
  text = replace_all(text, " @,@ ", ",");
  text = replace_all(text, " @.@ ", ".");
  for (const char mark : {':', ';', '.', '!', '?', ','}) {
    text = replace_all(text, std::string{' ', mark, ' '}, std::string{mark, ' '});
  }
  text = tighten(text, '(', ')');
  text = tighten(text, '[', ']');
  text = tighten(text, '{', '}');
  text = tighten(text, '"', '"');
  text = tighten(text, '\'', '\'');
  text = replace_all(text, "= = = =", "====");
  text = replace_all(text, "= = =", "===");
  text = replace_all(text, "= =", "==");
  text = replace_all(text, " \u00B0 ", "\u00B0");
  text = replace_all(text, " \n", "\n");
  text = replace_all(text, "\n ", "\n");
  text = replace_all(text, " N ", " 1 ");
  return replace_all(text, " 's", "'s");
}

int64_t count_words(std::string_view page) {
  // Pieces are one more than the runs of white space between them.
  int64_t runs = 0;
  while (!page.empty()) {
    const std::string_view rest = strip_left(page);
    if (rest.size() < page.size()) {
      ++runs;
      page = rest;
      continue;
    }
    size_t next = 1;
    while (next < page.size() && (static_cast<unsigned char>(page[next]) & 0xC0) == 0x80) ++next;
    page.remove_prefix(next);
  }
  return runs + 1;
}

}  // namespace qeval::datasets
