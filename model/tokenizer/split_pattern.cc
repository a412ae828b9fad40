#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/split_pattern.h"

#include <array>
#include <new>

#include <pcre2.h>

#include "base/error.h"

namespace qeval::model {
namespace {

constexpr uint32_t kMatchLimit = 20'000'000;
/// What \w is to Oniguruma, which `tokenizers` uses.
constexpr std::string_view kWordCharacter = R"([\p{L}\p{M}\p{N}\p{Pc}])";

constexpr bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool is_ascii_alphanumeric(char c) {
  return is_ascii_letter(c) || (c >= '0' && c <= '9');
}

/// Rewrites a pattern for PCRE2. Engines agree on the dialect that SplitPattern documents but for white
/// space, where PCRE2's \s adds U+180E to Unicode's White_Space; whatever else could mean two things is
/// refused by name.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_character(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '^' || c == '$') {
        refuse(std::string_view(&c, 1), "line anchors");
      } else if (c == '(' && rest().starts_with("(?") && !known_group()) {
        refuse(rest().substr(0, 4), "this kind of group");
      } else if (c == '(' && rest().starts_with("(*")) {
        refuse("(*", "verbs");
      } else if (c == '}' && rest().starts_with("}+")) {
        refuse("}+", "a plus after a counted repetition");
      } else {
        copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  std::string_view rest() const { return pattern_.substr(at_); }

  void copy(size_t count) {
    out_ += rest().substr(0, count);
    at_ += count;
  }

  [[noreturn]] void refuse(std::string_view what, std::string_view why) const {
    fail(
        "pattern '{}': '{}' is not supported ({} mean different things to different engines); accepted are "
        "literals, "
        "(?:…), (?i:…), (?!…), (?=…), classes, quantifiers, \\s \\S \\d \\D \\b \\A \\z \\r \\n \\t \\f "
        "\\xHH "
        "and \\p{{…}} with a general category",
        printable(pattern_), printable(what), why);
  }

  bool known_group() const {
    for (const std::string_view opening : {"(?:", "(?i:", "(?!", "(?="}) {
      if (rest().starts_with(opening)) return true;
    }
    return false;
  }

  void open_class() {
    in_class_ = true;
    copy(rest().starts_with("[^") ? 2 : 1);
    if (rest().starts_with("]")) refuse("[]", "a bracket right after the opening of a class");
  }

  void class_character(char c) {
    if (c == '[') refuse("[[", "classes inside a class");
    if (rest().starts_with("&&")) refuse("&&", "intersections of classes");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void escape() {
    if (at_ + 1 == pattern_.size()) refuse("\\", "a last backslash");
    const char c = pattern_[at_ + 1];
    constexpr std::string_view kSame = "dDrntfAz";
    if ((c == 'A' || c == 'z' || c == 'b') && in_class_) {
      refuse(rest().substr(0, 2), "such escapes in a class");
    } else if (c == 'b') {
      // PCRE2's own \b does not count marks among a word's characters.
      out_ += "(?:(?<=" + std::string(kWordCharacter) + ")(?!" + std::string(kWordCharacter) + ")|(?<!" +
              std::string(kWordCharacter) + ")(?=" + std::string(kWordCharacter) + "))";
      at_ += 2;
    } else if (c == 's' || c == 'S') {
      out_ += c == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      at_ += 2;
    } else if (c == 'p' || c == 'P') {
      property();
    } else if (c == 'x') {
      hexadecimal();
    } else if (kSame.find(c) != std::string_view::npos || !is_ascii_alphanumeric(c)) {
      copy(2);
    } else {
      refuse(rest().substr(0, 2), "such escapes");
    }
  }

  /// \p{L}, \p{Lu}, \p{^L}: one or two letters. Scripts are left out: PCRE2 counts their extensions as well.
  void property() {
    const size_t close = rest().find('}');
    if (!rest().substr(2).starts_with("{") || close == std::string_view::npos) {
      refuse(rest().substr(0, 3), "properties without braces");
    }
    std::string_view name = rest().substr(3, close - 3);
    if (name.starts_with("^")) name.remove_prefix(1);
    if (name.empty() || name.size() > 2 || !is_ascii_letter(name[0]) || !is_ascii_letter(name.back())) {
      refuse(rest().substr(0, close + 1), "properties other than general categories");
    }
    copy(close + 1);
  }

  void hexadecimal() {
    const std::string_view digits = rest().substr(2);
    const size_t close = digits.find('}');
    if (digits.starts_with("{") && close != std::string_view::npos && close <= 9) {
      copy(2 + close + 1);
    } else if (digits.size() >= 2 && is_hex(digits[0]) && is_hex(digits[1])) {
      copy(4);
    } else {
      refuse(rest().substr(0, 4), "such escapes");
    }
  }

  static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  }

  std::string_view pattern_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

/// Shared by all matches, only read: how much work one find() may do.
pcre2_match_context* match_limits() {
  struct FreeContext {
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  };
  static const std::unique_ptr<pcre2_match_context, FreeContext> context = [] {
    std::unique_ptr<pcre2_match_context, FreeContext> made(pcre2_match_context_create(nullptr));
    if (!made) throw std::bad_alloc();
    pcre2_set_match_limit(made.get(), kMatchLimit);
    return made;
  }();
  return context.get();
}

}  // namespace

void SplitPattern::Free::operator()(pcre2_code* code) const {
  pcre2_code_free(code);
}
void SplitPattern::MatchBuffer::Free::operator()(pcre2_match_data* data) const {
  pcre2_match_data_free(data);
}

SplitPattern::MatchBuffer::MatchBuffer() : data_(pcre2_match_data_create(1, nullptr)) {
  if (!data_) throw std::bad_alloc();
}

SplitPattern::SplitPattern(std::string_view pattern) : source_(pattern) {
  const std::string translated = Translator(pattern).run();
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &error_offset, nullptr));
  if (!code_) fail("pattern '{}': {}", printable(source_), pcre2_message(error));
  uint32_t matches_nothing = 0;
  pcre2_pattern_info(code_.get(), PCRE2_INFO_MATCHEMPTY, &matches_nothing);
  if (matches_nothing != 0) {
    fail("pattern '{}' can match the empty string; a pattern that consumes text is needed",
         printable(source_));
  }
  // Where the machine has no JIT compiler, pcre2_match interprets the pattern: slower, the same matches.
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
}

std::optional<TextRange> SplitPattern::find(std::string_view text, size_t from, MatchBuffer& buffer) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int result = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK, buffer.data_.get(),
                           match_limits());
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
    // The interpreter keeps its backtracking points on the heap.
    result = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         buffer.data_.get(), match_limits());
  }
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) {
    fail("pattern '{}' fails at byte {} of the text: {}", printable(source_), from, pcre2_message(result));
  }
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(buffer.data_.get());
  return TextRange{range[0], range[1]};
}

std::string escape_pattern(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    constexpr std::string_view kMeta = "\\^$.[]|()?*+{}&-";
    if (kMeta.find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace qeval::model
