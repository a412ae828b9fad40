#include "eval/tasks/python_pattern.h"

#include <array>
#include <cctype>
#include <functional>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;

/// Where a match and its groups lie: pairs of begin and end, PCRE2_UNSET for a group that took no part.
using Visit = std::function<void(const PCRE2_SIZE* places)>;

[[noreturn]] void refuse_pattern(const std::string& source, std::string_view text, int code) {
  fail("pattern '{}' cannot be sought in a text of {} bytes: {}", printable(source, 200), text.size(),
       message_of(code));
}

void for_each_match(const pcre2_code* code, std::string_view text, const std::string& source,
                    const Visit& visit) {
  const MatchData data(pcre2_match_data_create_from_pattern(code, nullptr));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  PCRE2_SIZE start = 0;
  uint32_t options = PCRE2_NO_UTF_CHECK;
  while (start <= text.size()) {
    const int found = pcre2_match(code, subject, text.size(), start, options, data.get(), nullptr);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0) refuse_pattern(source, text, found);
    const PCRE2_SIZE* places = pcre2_get_ovector_pointer(data.get());
    visit(places);
    // Behind an empty match only one that is not empty may begin at its place.
    options = PCRE2_NO_UTF_CHECK | (places[0] == places[1] ? PCRE2_NOTEMPTY_ATSTART : 0U);
    start = places[1];
  }
}

}  // namespace

struct PythonPattern::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  std::unique_ptr<pcre2_code, Freed<pcre2_code_free>> code;
};

PythonPattern::PythonPattern(std::string_view pattern, bool ignore_case) : source_(pattern) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | (ignore_case ? PCRE2_CASELESS : 0U), &error, &at, context.get());
  if (compiled == nullptr) fail("pattern '{}', byte {}: {}", printable(source_, 200), at, message_of(error));
  code_ = std::make_shared<const Code>(compiled);
  uint32_t groups = 0;
  pcre2_pattern_info(compiled, PCRE2_INFO_CAPTURECOUNT, &groups);
  groups_ = groups;
}

PythonPattern PythonPattern::of_text(std::string_view text) {
  std::string pattern;
  while (!text.empty()) {
    const std::string_view letter = text.substr(0, code_point_length(text));
    text.remove_prefix(letter.size());
    const auto byte = static_cast<unsigned char>(letter.front());
    if (letter == "i" || letter == "I" || letter == "\u0130" || letter == "\u0131") {
      pattern += "[iI\u0130\u0131]";  // which Python takes for one letter, and PCRE2 for three
    } else if (byte < 0x80 && std::isalnum(byte) == 0) {
      pattern += fmt::format("\\x{{{:x}}}", byte);
    } else {
      pattern += letter;
    }
  }
  return PythonPattern(pattern, true);
}

std::vector<PythonPattern::Match> PythonPattern::matches(std::string_view text) const {
  std::vector<Match> out;
  for_each_match(code_->code.get(), text, source_, [&](const PCRE2_SIZE* places) {
    Match& match = out.emplace_back();
    match.begin = places[0];
    match.end = places[1];
    for (size_t group = 0; group <= groups_; ++group) {
      const PCRE2_SIZE begin = places[2 * group], end = places[2 * group + 1];
      match.groups.push_back(begin == PCRE2_UNSET ? std::string_view() : text.substr(begin, end - begin));
    }
  });
  return out;
}

bool PythonPattern::is_in(std::string_view text) const {
  const MatchData data(pcre2_match_data_create_from_pattern(code_->code.get(), nullptr));
  const int found = pcre2_match(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                PCRE2_NO_UTF_CHECK, data.get(), nullptr);
  if (found < 0 && found != PCRE2_ERROR_NOMATCH) refuse_pattern(source_, text, found);
  return found >= 0;
}

std::vector<std::string> PythonPattern::split(std::string_view text) const {
  std::vector<std::string> out;
  size_t begin = 0;
  for (const Match& match : matches(text)) {
    out.emplace_back(text.substr(begin, match.begin - begin));
    begin = match.end;
  }
  out.emplace_back(text.substr(begin));
  return out;
}

std::string PythonPattern::substitute(std::string_view text, std::string_view replacement) const {
  std::string out;
  size_t kept = 0;
  for (const Match& match : matches(text)) {
    out += text.substr(kept, match.begin - kept);
    for (size_t i = 0; i < replacement.size(); ++i) {
      if (replacement[i] == '\\' && i + 1 < replacement.size()) {
        out += match.groups.at(static_cast<size_t>(replacement[++i] - '0'));
      } else {
        out += replacement[i];
      }
    }
    kept = match.end;
  }
  return out += text.substr(kept);
}

std::vector<std::vector<std::string>> PythonPattern::find_all(std::string_view text) const {
  std::vector<std::vector<std::string>> out;
  for_each_match(code_->code.get(), text, source_, [&](const PCRE2_SIZE* places) {
    std::vector<std::string>& match = out.emplace_back();
    for (size_t group = groups_ == 0 ? 0 : 1; group <= groups_; ++group) {
      const PCRE2_SIZE begin = places[2 * group], end = places[2 * group + 1];
      match.emplace_back(begin == PCRE2_UNSET ? std::string_view() : text.substr(begin, end - begin));
    }
  });
  return out;
}

std::string PythonPattern::remove_all(std::string_view text) const {
  return replace_all(text, "");
}

std::string PythonPattern::replace_all(std::string_view text, std::string_view replacement) const {
  std::string out;
  size_t kept = 0;
  for_each_match(code_->code.get(), text, source_, [&](const PCRE2_SIZE* places) {
    out += text.substr(kept, places[0] - kept);
    out += replacement;
    kept = places[1];
  });
  return out += text.substr(kept);
}

}  // namespace qeval::eval
