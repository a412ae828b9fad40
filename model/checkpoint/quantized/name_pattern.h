#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;

namespace qeval::model {

/// A regular expression of a quantization config, in Python's dialect as far as PCRE2 shares it. It comes
/// from a stranger: the work of a match is bounded.
class NamePattern {
 public:
  /// Throws Error that begins with `where` and names the pattern, where it is not one.
  NamePattern(std::string_view pattern, std::string where);

  /// Whether a match begins where the name does (Python's re.match).
  bool matches_start(std::string_view name) const;
  /// Whether there is a match anywhere (re.search).
  bool occurs_in(std::string_view name) const;

 private:
  bool match(std::string_view name, uint32_t options) const;

  std::string source_, where_;
  std::shared_ptr<const pcre2_real_code_8> code_;
};

/// Whether `name` is what `pattern` says, in which * stands for any text.
bool matches_wildcard(std::string_view pattern, std::string_view name);

}  // namespace qeval::model
