#include "eval/engine/jinja/text_search.h"

#include <algorithm>

#include "base/characters.h"
#include "base/unicode.h"

namespace qeval::jinja {
namespace {

size_t begin_of_last(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

}  // namespace

std::string_view strip_characters(Runtime& runtime, std::string_view text,
                                  std::optional<std::string_view> characters, bool left, bool right) {
  if (!characters) {
    if (left) text = strip_left(text);
    return right ? strip_right(text) : text;
  }
  const auto among = [&](std::string_view character) {
    runtime.step(1 + static_cast<int64_t>(characters->size()) / 64);
    return characters->find(character) != std::string_view::npos;
  };
  while (left && !text.empty()) {
    const size_t length = code_point_at(text, 0).length;
    if (!among(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    const size_t at = begin_of_last(text);
    if (!among(text.substr(at))) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string replace_all(Runtime& runtime, std::string_view text, std::string_view old, std::string_view now,
                        int64_t most) {
  Builder out(runtime);
  size_t at = 0;
  if (old.empty()) {  // between all characters, in front and behind
    for (; most != 0 && at <= text.size(); --most) {
      out.add(now);
      if (at == text.size()) return out.take();
      const size_t length = code_point_at(text, at).length;
      out.add(text.substr(at, length));
      at += length;
    }
    out.add(text.substr(std::min(at, text.size())));
    return out.take();
  }
  for (; most != 0; --most) {
    const size_t found = text.find(old, at);
    if (found == std::string_view::npos) break;
    out.add(text.substr(at, found - at));
    out.add(now);
    at = found + old.size();
  }
  out.add(text.substr(at));
  return out.take();
}

int64_t count_of(std::string_view text, std::string_view wanted) {
  if (wanted.empty()) return static_cast<int64_t>(count_code_points(text)) + 1;
  int64_t count = 0;
  for (size_t at = 0; (at = text.find(wanted, at)) != std::string_view::npos; at += wanted.size()) ++count;
  return count;
}

std::string center(Runtime& runtime, std::string_view text, int64_t width, std::string_view fill) {
  const auto length = static_cast<int64_t>(count_code_points(text));
  if (width <= length) return std::string(text);
  const int64_t missing = width - length;
  const int64_t left = missing / 2 + (missing & width & 1);
  Builder out(runtime);
  out.add(static_cast<size_t>(left), fill);
  out.add(text);
  out.add(static_cast<size_t>(missing - left), fill);
  return out.take();
}

Window window(std::string_view text, std::optional<int64_t> from, std::optional<int64_t> to) {
  Window out{text, 0, false};
  if (!from && !to) return out;
  const auto length = static_cast<int64_t>(count_code_points(text));
  const auto clip = [length](int64_t index) {
    return index < 0 ? std::max<int64_t>(index + length, 0) : index;
  };
  const int64_t begin = clip(from.value_or(0));
  const int64_t end = std::min(clip(to.value_or(length)), length);
  if (begin > end) {
    out.outside = true;
    return out;
  }
  const auto byte_of = [text](int64_t character) {
    size_t at = 0;
    for (; character > 0; --character) at += code_point_at(text, at).length;
    return at;
  };
  const size_t first = byte_of(begin);
  out.text = text.substr(first, byte_of(end) - first);
  out.characters_before = begin;
  return out;
}

std::vector<std::string_view> split(Runtime& runtime, std::string_view text,
                                    std::optional<std::string_view> separator, int64_t most) {
  std::vector<std::string_view> out;
  const auto add = [&](std::string_view part) {
    runtime.step(8);
    out.push_back(part);
  };
  if (separator) {
    for (; most != 0; --most) {
      const size_t found = text.find(*separator);
      if (found == std::string_view::npos) break;
      add(text.substr(0, found));
      text.remove_prefix(found + separator->size());
    }
    add(text);
    return out;
  }
  for (text = strip_left(text); most != 0 && !text.empty(); --most) {
    size_t end = 0;
    while (end < text.size()) {
      const CodePoint c = code_point_at(text, end);
      if (is_python_space(c.value)) break;
      end += c.length;
    }
    add(text.substr(0, end));
    text = strip_left(text.substr(end));
  }
  if (!text.empty()) add(most == 0 ? strip_right(text) : text);
  return out;
}

std::vector<std::string_view> split_right(Runtime& runtime, std::string_view text,
                                          std::optional<std::string_view> separator, int64_t most) {
  std::vector<std::string_view> out;
  const auto add = [&](std::string_view part) {
    runtime.step(8);
    out.push_back(part);
  };
  if (separator) {
    for (; most != 0; --most) {
      const size_t found = text.rfind(*separator);
      if (found == std::string_view::npos) break;
      add(text.substr(found + separator->size()));
      text = text.substr(0, found);
    }
    add(text);
  } else {
    for (text = strip_right(text); most != 0 && !text.empty(); --most) {
      size_t begin = text.size();
      while (begin > 0) {
        const size_t at = begin_of_last(text.substr(0, begin));
        if (is_python_space(code_point_at(text, at).value)) break;
        begin = at;
      }
      add(text.substr(begin));
      text = strip_right(text.substr(0, begin));
    }
    if (!text.empty()) add(most == 0 ? strip_left(text) : text);
  }
  std::ranges::reverse(out);
  return out;
}

std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    size_t behind = text.size();
    while (end < text.size()) {
      const CodePoint c = code_point_at(text, end);
      if (is_line_end(c.value)) {
        behind = end + c.length;
        if (c.value == '\r' && behind < text.size() && text[behind] == '\n') ++behind;
        break;
      }
      end += c.length;
    }
    runtime.step(8);
    out.push_back(text.substr(begin, (keep_ends ? behind : end) - begin));
    begin = behind;
  }
  return out;
}

}  // namespace qeval::jinja
