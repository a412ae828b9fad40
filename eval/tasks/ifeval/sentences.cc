#include "eval/tasks/ifeval/sentences.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/characters.h"
#include "base/error.h"
#include "base/file.h"
#include "base/unicode.h"
#include "eval/tasks/python_pattern.h"

namespace qeval::eval {
namespace {

/// Flags of ortho_context.tab: where a word was seen in which case.
constexpr int kUpperInside = 1 << 2, kLowerAtStart = 1 << 4;
constexpr int kUpper = 1 << 1 | 1 << 2 | 1 << 3, kLower = 1 << 4 | 1 << 5 | 1 << 6;

// PunktLanguageVars' expressions, those in verbose form without their white space.
#define QEVAL_NON_WORD "(?:[)\";}\\]\\*:@'\\({\\[\u2018\u2019\u201c\u201d\u00ab\u00bb?!])"
#define QEVAL_MULTI_CHAR "(?:\\-{2,}|\\.{2,}|(?:\\.\\s){2,}\\.)"

const PythonPattern& end_contexts() {
  static const PythonPattern pattern("[.?!](?=(" QEVAL_NON_WORD "|\\s+(\\S+)))");
  return pattern;
}

const PythonPattern& word_pattern() {
  static const PythonPattern pattern(
      "(" QEVAL_MULTI_CHAR "|(?=[^\\(\\\"\\`{\\[:;&\\#\\*@\\)}\\]\\-,])\\S+?(?=\\s|$|" QEVAL_NON_WORD
      "|" QEVAL_MULTI_CHAR "|,(?=$|\\s|" QEVAL_NON_WORD "|" QEVAL_MULTI_CHAR "))|\\S)");
  return pattern;
}
#undef QEVAL_NON_WORD
#undef QEVAL_MULTI_CHAR

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t begin = 0;;) {
    const size_t end = text.find('\n', begin);
    out.push_back(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    if (end == std::string_view::npos) return out;
    begin = end + 1;
  }
}

/// The lines of a file of the model, without those that are empty.
template <typename Visit>
void for_lines(const std::filesystem::path& path, const Visit& visit) {
  const std::string text = with_unix_line_ends(read_file(path));
  int64_t number = 0;
  for (const std::string_view line : split_lines(text)) {
    ++number;
    if (!line.empty()) visit(line, fmt::format("{}:{}", path.string(), number));
  }
}

std::pair<std::string_view, std::string_view> at_tab(std::string_view line, const std::string& where) {
  const size_t tab = line.find('\t');
  if (tab == std::string_view::npos) fail("{}: two columns with a tab between them are expected", where);
  return {line.substr(0, tab), line.substr(tab + 1)};
}

std::optional<char32_t> first_letter(std::string_view text) {
  return text.empty() ? std::nullopt : std::optional(code_point_at(text, 0).value);
}

}  // namespace

struct SentenceSplitter::Token {
  explicit Token(std::string_view spelt) : text(spelt) {
    static const PythonPattern number("^-?[\\.,]?\\d[\\d,\\.-]*\\.?$");
    type = number.replace_all(lower(text), "##number##");
  }
  std::string type_without_period() const {
    return type.size() > 1 && type.ends_with('.') ? type.substr(0, type.size() - 1) : type;
  }
  std::string type_without_end() const { return ends_sentence ? type_without_period() : type; }
  bool is_initial() const {
    static const PythonPattern initial("\\A[\\p{Alphabetic}\\p{M}\\p{Pc}\\p{Join_Control}]\\.$");
    return initial.is_in(text);
  }
  bool is_ellipsis() const {
    static const PythonPattern dots("\\A\\.\\.+$");
    return dots.is_in(text);
  }
  bool begins_upper() const { return is_upper(first_letter(text).value_or(0)); }
  bool begins_lower() const { return is_lower(first_letter(text).value_or(0)); }

  std::string text, type;
  bool ends_sentence = false, abbreviates = false, ellipsis = false;
};

/// Places in the text, in bytes.
struct SentenceSplitter::Context {
  size_t end = 0;         ///< behind the mark
  size_t next_begin = 0;  ///< of the word behind white space, else `end`
  std::string text;       ///< the words around the mark
};

SentenceSplitter::SentenceSplitter(const std::filesystem::path& folder) {
  for_lines(folder / "abbrev_types.txt",
            [&](std::string_view line, const std::string&) { abbreviations_.emplace(line); });
  for_lines(folder / "sent_starters.txt",
            [&](std::string_view line, const std::string&) { starters_.emplace(line); });
  for_lines(folder / "collocations.tab", [&](std::string_view line, const std::string& where) {
    const auto [first, second] = at_tab(line, where);
    collocations_.emplace(first, second);
  });
  for_lines(folder / "ortho_context.tab", [&](std::string_view line, const std::string& where) {
    const auto [word, number] = at_tab(line, where);
    int flags = 0;
    const auto read = std::from_chars(number.data(), number.data() + number.size(), flags);
    if (read.ec != std::errc() || read.ptr != number.data() + number.size() || flags < 0)
      fail("{}: a word and a number are expected", where);
    contexts_[std::string(word)] = flags;
  });
}

int SentenceSplitter::flags_of(const std::string& type) const {
  const auto found = contexts_.find(type);
  return found == contexts_.end() ? 0 : found->second;
}

SentenceSplitter::Starter SentenceSplitter::may_start(const Token& token) const {
  if (token.text.size() == 1 && std::string_view(";:,.!?").find(token.text[0]) != std::string_view::npos)
    return Starter::no;
  const int flags = flags_of(token.type_without_end());
  if (token.begins_upper() && (flags & kLower) != 0 && (flags & kUpperInside) == 0) return Starter::yes;
  if (token.begins_lower() && ((flags & kUpper) != 0 || (flags & kLowerAtStart) == 0)) return Starter::no;
  return Starter::unknown;
}

void SentenceSplitter::annotate(Token& token) const {
  if (token.text == "." || token.text == "?" || token.text == "!") {
    token.ends_sentence = true;
  } else if (token.is_ellipsis()) {
    token.ellipsis = true;
  } else if (token.text.ends_with('.') && !token.text.ends_with("..")) {
    const std::string word = lower(std::string_view(token.text).substr(0, token.text.size() - 1));
    const size_t hyphen = word.rfind('-');
    const std::string last = hyphen == std::string::npos ? word : word.substr(hyphen + 1);
    token.abbreviates = abbreviations_.contains(word) || abbreviations_.contains(last);
    token.ends_sentence = !token.abbreviates;
  }
}

void SentenceSplitter::annotate_pair(Token& token, const Token& next) const {
  if (!token.text.ends_with('.')) return;
  const auto abbreviate = [&] {
    token.ends_sentence = false;
    token.abbreviates = true;
  };
  const std::string type = token.type_without_period(), next_type = next.type_without_end();
  const bool initial = token.is_initial();
  if (collocations_.contains({type, next_type})) return abbreviate();
  if ((token.abbreviates || token.ellipsis) && !initial) {
    if (may_start(next) == Starter::yes || (next.begins_upper() && starters_.contains(next_type))) {
      token.ends_sentence = true;
      return;
    }
  }
  if (!initial && type != "##number##") return;
  const Starter start = may_start(next);
  if (start == Starter::no) return abbreviate();
  if (start == Starter::unknown && initial && next.begins_upper() && (flags_of(next_type) & kLower) == 0)
    abbreviate();
}

bool SentenceSplitter::holds_break(std::string_view text) const {
  std::vector<Token> tokens;
  for (const std::string_view line : split_lines(text)) {
    if (strip(line).empty()) continue;
    for (const PythonPattern::Match& match : word_pattern().matches(line))
      tokens.emplace_back(match.groups[0]);
  }
  for (Token& token : tokens) annotate(token);
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    annotate_pair(tokens[i], tokens[i + 1]);
    if (tokens[i].ends_sentence) return true;
  }
  return false;
}

std::vector<std::string> SentenceSplitter::sentences(std::string_view text) const {
  // Marks that may end a sentence, of those in one word the last.
  std::vector<Context> contexts;
  size_t word_begin = 0, word_end = 0;
  std::optional<Context> previous;
  for (const PythonPattern::Match& match : end_contexts().matches(text)) {
    const std::string_view before = text.substr(word_end, match.begin - word_end);
    const size_t space = before.find_last_of(" \t\n\r\v\f");
    const size_t begin = space == std::string_view::npos || space == 0 ? word_begin : word_end + space + 1;
    if (previous && word_end <= begin) contexts.push_back(std::move(*previous));
    word_begin = begin;
    word_end = match.begin;
    const bool word_follows = !match.groups[2].empty();
    previous = Context{match.end,
                       word_follows ? static_cast<size_t>(match.groups[2].data() - text.data()) : match.end,
                       std::string(text.substr(begin, match.end - begin)).append(match.groups[1])};
  }
  if (previous) contexts.push_back(std::move(*previous));

  std::vector<std::pair<size_t, size_t>> slices;
  size_t last = 0;
  for (const Context& context : contexts) {
    if (!holds_break(context.text)) continue;
    slices.emplace_back(last, context.end);
    last = context.next_begin;
  }
  slices.emplace_back(last, strip_right(text).size());

  // Closing quotes and brackets belong to the sentence in front of them.
  static const PythonPattern closing(
      "(?m)\\A[\"')\\]}\u2018\u2019\u201c\u201d\u00ab\u00bb]+?(?:\\s+|(?=--)|$)");
  std::vector<std::string> out;
  const auto piece = [&](size_t begin, size_t end) {
    return begin < end ? text.substr(begin, end - begin) : "";
  };
  size_t moved = 0;
  for (size_t i = 0; i < slices.size(); ++i) {
    const size_t begin = slices[i].first + moved;
    moved = 0;
    if (i + 1 < slices.size()) {
      const std::vector<PythonPattern::Match> found =
          closing.matches(piece(slices[i + 1].first, slices[i + 1].second));
      if (!found.empty()) {
        out.emplace_back(piece(begin, slices[i + 1].first + strip_right(found[0].groups[0]).size()));
        moved = found[0].end;
        continue;
      }
    }
    if (begin < slices[i].second) out.emplace_back(piece(begin, slices[i].second));
  }
  return out;
}

std::vector<std::string> treebank_words(std::string text) {
  static const std::vector<std::pair<PythonPattern, std::string>> steps = [] {
    std::vector<std::pair<PythonPattern, std::string>> out;
    // W stands for a character of a word.
    const std::string_view word = kNltkWord;
    const auto add = [&](std::string pattern, const char* replacement) {
      for (size_t at = 0; (at = pattern.find('W', at)) != std::string::npos; at += word.size())
        pattern.replace(at, 1, word);
      out.emplace_back(PythonPattern(pattern), replacement);
    };
    add("([\u00ab\u201c\u2018\u201e]|[`]+)", " \\1 ");
    add("^\"", "``");
    add("(``)", " \\1 ");
    add("([ \\(\\[{<])(\"|'{2})", "\\1 `` ");
    add("(?i)(?<!W)(')(?!(?:re|ve|ll|m|t|s|d|n)(?!W))(?=W)", "\\1 ");
    add("([^\\.])(\\.)([\\]\\)}>\"'\u00bb\u201d\u2019 ]*+)\\s*$", "\\1 \\2 \\3 ");
    add("([:,])([^\\d])", " \\1 \\2");
    add("([:,])$", " \\1 ");
    add("\\.{2,}", " \\0 ");
    add("[;@#$%&]", " \\0 ");
    add("[\u2012-\u2015]", " \\0 ");
    add("([^\\.])(\\.)([\\]\\)}>\"']*)\\s*$", "\\1 \\2\\3 ");
    add("[?!]", " \\0 ");
    add("([^'])' ", "\\1 ' ");
    add("[*]", " \\0 ");
    add("[\\]\\[\\(\\)\\{\\}\\<\\>]", " \\0 ");
    add("--", " -- ");
    add("\\A", " ");
    add("\\z", " ");
    add("([\u00bb\u201d\u2019])", " \\1 ");
    add("''", " '' ");
    add("\"", " '' ");
    add("\\s+", " ");
    add("([^' ])('[sS]|'[mM]|'[dD]|') ", "\\1 \\2 ");
    add("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "\\1 \\2 ");
    for (const char* contraction :
         {"(?i)(?<!W)(can)(not)(?!W)", "(?i)(?<!W)(d)('ye)(?!W)", "(?i)(?<!W)(gim)(me)(?!W)",
          "(?i)(?<!W)(gon)(na)(?!W)", "(?i)(?<!W)(got)(ta)(?!W)", "(?i)(?<!W)(lem)(me)(?!W)",
          "(?i)(?<!W)(more)('n)(?!W)", "(?i)(?<!W)(wan)(na)(?=\\s)", "(?i) ('t)(is)(?!W)",
          "(?i) ('t)(was)(?!W)"})
      add(contraction, " \\1 \\2 ");
    return out;
  }();
  for (const auto& [pattern, replacement] : steps) text = pattern.substitute(text, replacement);
  static const PythonPattern word("\\S+");
  std::vector<std::string> out;
  for (const PythonPattern::Match& match : word.matches(text)) out.emplace_back(match.groups[0]);
  return out;
}

std::vector<std::string> SentenceSplitter::words(std::string_view text) const {
  std::vector<std::string> out;
  for (std::string& sentence : sentences(text)) {
    for (std::string& word : treebank_words(std::move(sentence))) out.push_back(std::move(word));
  }
  return out;
}

}  // namespace qeval::eval
