#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/checkpoint/quantized/name_pattern.h"

#include <new>

#include <pcre2.h>

#include "base/error.h"

namespace qeval::model {
namespace {

constexpr uint32_t kNameMatchLimit = 1'000'000;

}  // namespace

NamePattern::NamePattern(std::string_view pattern, std::string where)
    : source_(pattern), where_(std::move(where)) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY, &error, &offset, nullptr);
  if (code == nullptr) {
    char text[160] = {};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text);
    fail("{}: '{}' is not a regular expression: {} at {}", where_, printable(source_), text, offset);
  }
  code_ = std::shared_ptr<const pcre2_real_code_8>(
      code, [](const pcre2_real_code_8* c) { pcre2_code_free(const_cast<pcre2_real_code_8*>(c)); });
}

bool NamePattern::match(std::string_view name, uint32_t options) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (data == nullptr || context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), kNameMatchLimit);
  const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0,
                                options, data.get(), context.get());
  if (found >= 0) return true;
  if (found == PCRE2_ERROR_NOMATCH) return false;
  fail("{}: '{}' needs too much backtracking on {}; accepted: a simpler regular expression", where_,
       printable(source_), printable(name));
}

bool NamePattern::matches_start(std::string_view name) const {
  return match(name, PCRE2_ANCHORED);
}

bool NamePattern::occurs_in(std::string_view name) const {
  return match(name, 0);
}

bool matches_wildcard(std::string_view pattern, std::string_view name) {
  // Greedy with one point to come back to, the last star: linear in the product of the lengths at worst.
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace qeval::model
