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

  /// re.findall: per match its groups ("" for one that took no part), or the whole where there are none.
  /// `text` is well-formed UTF-8. Throws Error where a match takes too long.
  std::vector<std::vector<std::string>> find_all(std::string_view text) const;
  /// re.sub of all matches by nothing.
  std::string remove_all(std::string_view text) const;
  /// re.sub of all matches by `replacement`, which is taken as it stands.
  std::string replace_all(std::string_view text, std::string_view replacement) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
  std::string source_;
  size_t groups_ = 0;
};

}  // namespace qeval::eval
