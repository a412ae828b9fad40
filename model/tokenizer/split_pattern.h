#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

namespace qeval::model {

/// Half-open byte range of a match.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

/// A regular expression that cuts text into words, in the dialect that tokenizer.json files and the field's
/// papers share: literals, groups (?:…) (?i:…) (?!…), classes, quantifiers, \s \S \d \D \b \A \z \r \n \t \f
/// \xHH and \p{…} with general categories, all of them Unicode-aware. Compiled to machine code by PCRE2.
/// Immutable: threads may share one and need a MatchBuffer each.
class SplitPattern {
 public:
  /// Throws Error for a syntax that other engines read differently, by name, and for a pattern that can match
  /// nothing.
  explicit SplitPattern(std::string_view pattern);

  /// Working memory of find(), for one thread at a time and any pattern.
  class MatchBuffer {
   public:
    MatchBuffer();

   private:
    friend class SplitPattern;
    struct Free {
      void operator()(pcre2_real_match_data_8* data) const;
    };
    std::unique_ptr<pcre2_real_match_data_8, Free> data_;
  };

  /// First match at or after byte `from` of `text`, which must be well-formed UTF-8. Throws Error where the
  /// pattern needs more backtracking than any sane one does.
  std::optional<TextRange> find(std::string_view text, size_t from, MatchBuffer& buffer) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::string source_;
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

/// A pattern that matches exactly `literal`.
std::string escape_pattern(std::string_view literal);

}  // namespace qeval::model
