#include "reports/text.h"

#include <algorithm>
#include <cstdint>

#include <fmt/format.h>

namespace qeval::reports {
namespace {

/// The code point at the start of `text` and its bytes; length 0 where the bytes are no UTF-8.
struct CodePoint {
  char32_t value = 0;
  size_t length = 0;
};

CodePoint decode(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t length = first >= 0xF5 ? 0 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (length == 0 || length > text.size()) return {};
  char32_t value = first & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return {};
    value = value << 6U | (byte(i) & 0x3FU);
  }
  constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (value < least[length] || value > 0x10FFFF || surrogate) return {};
  return {value, length};
}

/// Control characters, separators of lines, marks of direction, invisible characters, and what XML forbids.
bool acts(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0x061C || (c >= 0x200B && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || c == 0xFFFE ||
         c == 0xFFFF || (c >= 0xE0000 && c <= 0xE007F);
}

std::string cleaned(std::string_view text, size_t limit, bool lines) {
  std::string out;
  size_t points = 0, last = 0;  // `last`: where the last of `limit` code points began
  for (size_t i = 0; i < text.size();) {
    if (limit > 0 && points == limit) return out.substr(0, last) + "…";
    last = out.size();
    ++points;
    const CodePoint point = decode(text.substr(i));
    if (point.length == 0) {
      out += fmt::format("\\x{:02X}", static_cast<unsigned char>(text[i++]));
      continue;
    }
    if (point.value == '\n' && lines) {
      out += '\n';
    } else if (point.value == '\n' || point.value == '\t') {
      out += ' ';
    } else if (point.value == '\r' && i + 1 < text.size() && text[i + 1] == '\n') {
      --points;  // the line break that follows stands for both
    } else if (acts(point.value)) {
      out += fmt::format("\\u{{{:04X}}}", static_cast<uint32_t>(point.value));
    } else {
      out += text.substr(i, point.length);
    }
    i += point.length;
  }
  return out;
}

}  // namespace

std::string clean(std::string_view text, size_t limit) {
  return cleaned(text, limit, false);
}

std::string clean_lines(std::string_view text, size_t limit) {
  return cleaned(text, limit, true);
}

std::string markdown_inline(std::string_view text) {
  std::string out;
  for (const char c : clean(text)) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '|':  // a backslash in front of it does not survive every table parser
        out += "&#124;";
        break;
      case '`':
        out += "&#96;";
        break;
      case '@':  // names nobody
        out += "&#64;";
        break;
      case '\\':
      case '*':
      case '[':
      case ']':
      case '!':
      case '#':
      case '~':
      case '$':
        out += '\\';
        out += c;
        break;
      case '_':  // inside a word it is plain, and there stay readable in the source
        if (out.empty() || out.back() == ' ') out += '\\';
        out += c;
        break;
      default:
        out += c;
    }
  }
  if (!out.empty() && out.back() == '_') {
    out.back() = '\\';
    out += '_';
  }
  return out;
}

std::string markdown_text(std::string_view text) {
  const std::string out = markdown_inline(text);
  // What opens a list, a heading or a rule at the start of a line.
  const bool opens = !out.empty() && (out[0] == '-' || out[0] == '+' || out[0] == '=');
  return opens ? fmt::format("\\{}", out) : out;
}

std::string markdown_code_block(std::string_view text) {
  const std::string body = clean_lines(text);
  size_t longest = 2, run = 0;
  for (const char c : body) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(longest + 1, '`');
  return fence + "\n" + body + (body.ends_with('\n') ? "" : "\n") + fence + "\n";
}

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : clean_lines(text)) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string latex_text(std::string_view text) {
  const std::string source = clean(text);
  std::string out;
  for (size_t i = 0; i < source.size();) {
    const CodePoint point = decode(std::string_view(source).substr(i));
    const std::string_view bytes = std::string_view(source).substr(i, point.length);
    i += point.length;
    if (point.value > 0x17F) {
      switch (point.value) {
        case 0x2026:
          out += "\\ldots{}";
          break;
        case 0x2212:
          out += "$-$";
          break;
        case 0x2191:
          out += "$\\uparrow$";
          break;
        case 0x2193:
          out += "$\\downarrow$";
          break;
        case 0x2013:
          out += "--";
          break;
        case 0x221E:
          out += "$\\infty$";
          break;
        default:
          out += fmt::format("U+{:04X}", static_cast<uint32_t>(point.value));
      }
      continue;
    }
    constexpr std::string_view plain_escapes = "&%$#_{}";
    if (point.length == 1 && plain_escapes.find(bytes[0]) != std::string_view::npos) {
      out += '\\';
      out += bytes;
    } else if (bytes == "\\") {
      out += "\\textbackslash{}";
    } else if (bytes == "~") {
      out += "\\textasciitilde{}";
    } else if (bytes == "^") {
      out += "\\textasciicircum{}";
    } else if (bytes == "<") {
      out += "\\textless{}";
    } else if (bytes == ">") {
      out += "\\textgreater{}";
    } else if (bytes == "|") {
      out += "\\textbar{}";
    } else if (bytes == "\"") {
      out += "\\textquotedbl{}";
    } else if (bytes == "`") {
      out += "\\textasciigrave{}";
    } else if (bytes == "±") {
      out += "$\\pm$";
    } else {
      out += bytes;
    }
  }
  return out;
}

std::string csv_text(std::string_view text) {
  std::string body = clean(text);
  constexpr std::string_view opens_formula = "=+-@";
  const size_t first = body.find_first_not_of(' ');
  if (first != std::string::npos && opens_formula.find(body[first]) != std::string_view::npos)
    body = fmt::format("'{}", body);
  if (body.find_first_of(",\";") == std::string::npos && !body.starts_with(' ')) return body;
  std::string out = "\"";
  for (const char c : body) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string program_text(const std::string& version, const std::string& commit) {
  return commit.empty() ? version : fmt::format("{} (commit {})", version, commit);
}

}  // namespace qeval::reports
