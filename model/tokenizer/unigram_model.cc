#include "model/tokenizer/unigram_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::model {
namespace {

/// How much worse than the worst token an unknown character is, as in SentencePiece.
constexpr double kUnknownPenalty = 10;

}  // namespace

UnigramModel::UnigramModel(const std::vector<TokenizerDefinition::Token>& tokens,
                           std::optional<int32_t> unknown_id,
                           std::optional<std::array<int32_t, 256>> byte_tokens)
    : ends_(1), unknown_id_(unknown_id), byte_tokens_(byte_tokens) {
  double least = 0;
  for (const TokenizerDefinition::Token& token : tokens) {
    least = &token == tokens.data() ? token.score : std::min(least, token.score);
    int32_t node = 0;
    for (const char byte : token.text) {
      const uint64_t key = static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
      const auto [edge, added] = edges_.emplace(key, static_cast<int32_t>(ends_.size()));
      if (added) ends_.emplace_back();
      node = edge->second;
    }
    if (node != 0) ends_[static_cast<size_t>(node)] = {token.id, token.score};
  }
  unknown_score_ = least - kUnknownPenalty;
}

void UnigramModel::add_unknown(std::string_view text, std::vector<int32_t>& ids) const {
  // It may spell the unknown token itself.
  int32_t node = 0;
  for (size_t at = 0; at < text.size() && node >= 0; ++at) {
    const auto edge = edges_.find(static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(text[at]));
    node = edge == edges_.end() ? -1 : edge->second;
  }
  if (node > 0 && ends_[static_cast<size_t>(node)].id >= 0) {
    ids.push_back(ends_[static_cast<size_t>(node)].id);
    return;
  }
  const auto has_token = [&](char byte) { return (*byte_tokens_)[static_cast<unsigned char>(byte)] >= 0; };
  if (byte_tokens_ && std::all_of(text.begin(), text.end(), has_token)) {
    for (const char byte : text) ids.push_back((*byte_tokens_)[static_cast<unsigned char>(byte)]);
    return;
  }
  if (!unknown_id_) fail("no token spells '{}', and the tokenizer has no unknown token", printable(text, 40));
  ids.push_back(*unknown_id_);
}

void UnigramModel::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& nodes = scratch.nodes;
  nodes.assign(word.size() + 1, {});
  const auto reach = [&](size_t begin, size_t end, double score, int32_t id, bool unknown) {
    Scratch::Node& node = nodes[end];
    const double total = nodes[begin].score + score;
    if (node.begin < 0 || total > node.score) node = {total, static_cast<int64_t>(begin), id, unknown};
  };
  for (size_t begin = 0, length = 0; begin < word.size(); begin += length) {
    length = code_point_length(word.substr(begin));
    bool has_character = false;
    int32_t trie = 0;
    for (size_t end = begin; end < word.size();) {
      const auto edge =
          edges_.find(static_cast<uint64_t>(trie) << 8 | static_cast<unsigned char>(word[end++]));
      if (edge == edges_.end()) break;
      trie = edge->second;
      const End& token = ends_[static_cast<size_t>(trie)];
      if (token.id < 0) continue;
      reach(begin, end, token.score, token.id, false);
      has_character |= end - begin == length;
    }
    if (!has_character) reach(begin, begin + length, unknown_score_, unknown_id_.value_or(-1), true);
  }
  // The way back, then forward along it.
  auto& way = scratch.ends;
  way.clear();
  for (size_t end = word.size(); end > 0; end = static_cast<size_t>(nodes[end].begin)) way.push_back(end);
  for (size_t i = way.size(); i-- > 0;) {
    const Scratch::Node& node = nodes[way[i]];
    const auto is_unknown = [&](size_t end) {
      return nodes[end].unknown || (unknown_id_ && nodes[end].id == *unknown_id_);
    };
    if (!is_unknown(way[i])) {
      ids.push_back(node.id);
      continue;
    }
    while (i > 0 && is_unknown(way[i - 1])) --i;  // neighbours are one
    const auto begin = static_cast<size_t>(node.begin);
    add_unknown(word.substr(begin, way[i] - begin), ids);
  }
}

}  // namespace qeval::model
