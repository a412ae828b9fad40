#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::eval {

/// A regular expression as Python's `re` reads it, as far as PCRE2 agrees: Unicode classes, "." without "\n",
/// "$" also before a last "\n". \s lacks the separators U+001C to U+001F. Threads may share it.
class PythonPattern {
 public:
  /// Throws Error naming what is wrong with it.
  explicit PythonPattern(std::string_view pattern, bool ignore_case = false);
  /// re.compile(re.escape(text), re.IGNORECASE).
  static PythonPattern of_text(std::string_view text);

  /// Where a match and its groups lie in the text, in bytes; `group(0)` is the whole. A group that took no
  /// part is empty.
  struct Match {
    std::vector<std::string_view> groups;
    size_t begin = 0, end = 0;
  };
  /// re.finditer. Views into `text`, which is well-formed UTF-8; Errors as find_all() has them.
  std::vector<Match> matches(std::string_view text) const;
  /// Whether re.search finds one.
  bool is_in(std::string_view text) const;
  /// re.split; the pattern has no groups.
  std::vector<std::string> split(std::string_view text) const;

  /// re.findall: per match its groups ("" for one that took no part), or the whole where there are none.
  /// `text` is well-formed UTF-8. Throws Error where a match takes too long.
  std::vector<std::vector<std::string>> find_all(std::string_view text) const;
  /// re.sub of all matches by nothing.
  std::string remove_all(std::string_view text) const;
  /// re.sub of all matches by a template, in which \0 to \9 stand for groups.
  std::string substitute(std::string_view text, std::string_view replacement) const;
  /// re.sub of all matches by `replacement`, which is taken as it stands.
  std::string replace_all(std::string_view text, std::string_view replacement) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
  std::string source_;
  size_t groups_ = 0;
};

}  // namespace qeval::eval
