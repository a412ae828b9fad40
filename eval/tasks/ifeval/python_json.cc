#include <charconv>
#include <string_view>

#include "eval/tasks/ifeval/instructions.h"

namespace qeval::eval {
namespace {

/// A recursive-descent reader that keeps nothing. Python stops at its limit of nested calls; so deep a text
/// is no JSON here.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool is_document() {
    skip_space();
    if (!value(0)) return false;
    skip_space();
    return text_.empty();
  }

 private:
  static constexpr int kDeepest = 900;
  static constexpr size_t kMostDigits = 4300;  // of Python's int()

  void skip_space() { text_.remove_prefix(std::min(text_.find_first_not_of(" \t\n\r"), text_.size())); }
  bool take(std::string_view word) {
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  bool value(int depth) {
    if (depth > kDeepest) return false;
    if (take("\"")) return string();
    if (take("{")) return object(depth);
    if (take("[")) return list(depth);
    for (const std::string_view word : {"null", "true", "false", "NaN", "Infinity", "-Infinity"}) {
      if (take(word)) return true;
    }
    return number();
  }

  bool list(int depth) {
    skip_space();
    if (take("]")) return true;
    for (;;) {
      if (!value(depth + 1)) return false;
      skip_space();
      if (take("]")) return true;
      if (!take(",")) return false;
      skip_space();
    }
  }

  bool object(int depth) {
    skip_space();
    if (take("}")) return true;
    for (;;) {
      if (!take("\"") || !string()) return false;
      skip_space();
      if (!take(":")) return false;
      skip_space();
      if (!value(depth + 1)) return false;
      skip_space();
      if (take("}")) return true;
      if (!take(",")) return false;
      skip_space();
    }
  }

  bool string() {
    while (!text_.empty()) {
      const char c = text_.front();
      text_.remove_prefix(1);
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c != '\\') continue;
      if (text_.empty()) return false;
      const char escape = text_.front();
      text_.remove_prefix(1);
      if (escape == 'u') {
        unsigned code = 0;
        if (text_.size() < 4) return false;
        const auto read = std::from_chars(text_.data(), text_.data() + 4, code, 16);
        if (read.ec != std::errc() || read.ptr != text_.data() + 4) return false;
        text_.remove_prefix(4);
      } else if (std::string_view("\"\\/bfnrt").find(escape) == std::string_view::npos) {
        return false;
      }
    }
    return false;
  }

  size_t digits() {
    const size_t count = std::min(text_.find_first_not_of("0123456789"), text_.size());
    text_.remove_prefix(count);
    return count;
  }

  bool number() {
    take("-");
    size_t whole = 1;
    if (!take("0")) whole = digits();
    if (whole == 0) return false;
    bool is_integer = true;
    std::string_view before = text_;
    if (take(".")) {
      if (digits() > 0) {
        is_integer = false;
      } else {
        text_ = before;  // what follows is no part of the number
      }
    }
    before = text_;
    if (take("e") || take("E")) {
      if (!take("+")) take("-");
      if (digits() > 0) {
        is_integer = false;
      } else {
        text_ = before;
      }
    }
    return !is_integer || whole <= kMostDigits;
  }

  std::string_view text_;
};

}  // namespace

bool is_python_json(std::string_view text) {
  return Reader(text).is_document();
}

}  // namespace qeval::eval
