#include "model/tokenizer/added_tokens.h"

#include <cassert>

#include <utf8proc.h>

#include "base/error.h"
#include "base/json_object.h"
#include "base/unicode.h"
#include "model/tokenizer/definition.h"

namespace qeval::model {
namespace {

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

char32_t first_code_point(std::string_view text) {
  utf8proc_int32_t code_point = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &code_point);
  return static_cast<char32_t>(code_point);
}

char32_t last_code_point(std::string_view text) {
  size_t start = text.size() - 1;
  while (start > 0 && is_continuation(text[start])) --start;
  return first_code_point(text.substr(start));
}

/// What \w matches in Unicode regular expressions: letters, marks, decimal digits, connectors and joiners.
bool is_word_character(char32_t code_point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return code_point == 0x200C || code_point == 0x200D;
  }
}

/// Unicode's White_Space property, which is Python's notion less the four information separators.
bool is_white_space(char32_t code_point) {
  return is_python_space(code_point) && !(code_point >= 0x1C && code_point <= 0x1F);
}

size_t white_space_prefix(std::string_view text) {
  size_t length = 0;
  while (length < text.size() && is_white_space(first_code_point(text.substr(length)))) {
    ++length;
    while (length < text.size() && is_continuation(text[length])) ++length;
  }
  return length;
}

size_t white_space_suffix(std::string_view text) {
  size_t end = text.size();
  while (end > 0 && is_white_space(last_code_point(text.substr(0, end)))) {
    --end;
    while (is_continuation(text[end])) --end;
  }
  return text.size() - end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), token_of_node_{-1} {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    assert(!content.empty() && content.size() <= kMaxContentBytes);
    int32_t node = 0;
    for (const char byte : content) {
      const uint64_t key = static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
      const auto [edge, added] = edges_.emplace(key, static_cast<int32_t>(token_of_node_.size()));
      if (added) {
        token_of_node_.push_back(-1);
        if (node == 0) root_[static_cast<unsigned char>(byte)] = edge->second;
      }
      node = edge->second;
    }
    if (token_of_node_[static_cast<size_t>(node)] < 0) {
      token_of_node_[static_cast<size_t>(node)] = static_cast<int32_t>(i);
    }
  }
}

int32_t AddedTokenMatcher::longest_match(std::string_view text) const {
  int32_t node = root_[static_cast<unsigned char>(text[0])];
  int32_t best = -1;
  for (size_t i = 1; node != 0; ++i) {
    if (const int32_t token = token_of_node_[static_cast<size_t>(node)]; token >= 0) best = token;
    if (i == text.size()) break;
    const auto edge = edges_.find(static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(text[i]));
    node = edge == edges_.end() ? 0 : edge->second;
  }
  return best;
}

std::vector<TextSegment> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<TextSegment> segments;
  size_t done = 0;  // everything before is in `segments`
  const auto add_text_until = [&](size_t end) {
    if (end > done) segments.push_back({text.substr(done, end - done), -1});
  };
  size_t at = tokens_.empty() ? text.size() : 0;
  while (at < text.size()) {
    const int32_t match = longest_match(text.substr(at));
    if (match < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(match)];
    size_t start = at;
    size_t end = at + token.content.size();
    // What a longest match covers is used up even where the match does not count.
    at = end;
    if (token.single_word && ((start > 0 && is_word_character(last_code_point(text.substr(0, start)))) ||
                              (end < text.size() && is_word_character(first_code_point(text.substr(end)))))) {
      continue;
    }
    if (token.lstrip) start -= white_space_suffix(text.substr(done, start - done));
    if (token.rstrip) end += white_space_prefix(text.substr(end));
    add_text_until(start);
    segments.push_back({text.substr(start, end - start), token.id});
    done = at = end;
  }
  add_text_until(text.size());
  return segments;
}

int32_t read_token_id(const nlohmann::json& value, const std::string& where) {
  if (!value.is_number_integer() || value < 0 || value > kMaxTokenId) {
    fail("{}: token id {} is not an integer from 0 to {}", where, printable(value.dump(), 40), kMaxTokenId);
  }
  return value.get<int32_t>();
}

AddedToken read_added_token(const nlohmann::json& object, int32_t id, const std::string& where) {
  const JsonObject fields(object, where);
  AddedToken token;
  token.content = fields.string("content");
  if (token.content.empty() || token.content.size() > AddedTokenMatcher::kMaxContentBytes) {
    fail("{}: the content of added token {} has {} bytes; 1 to {} are accepted", where, id,
         token.content.size(), AddedTokenMatcher::kMaxContentBytes);
  }
  token.id = id;
  token.special = fields.boolean("special", false);
  token.normalized = fields.boolean("normalized", !token.special);
  token.lstrip = fields.boolean("lstrip", false);
  token.rstrip = fields.boolean("rstrip", false);
  token.single_word = fields.boolean("single_word", false);
  return token;
}

}  // namespace qeval::model
