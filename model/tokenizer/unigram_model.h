#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/tokenizer/definition.h"

namespace qeval::model {

/// The likeliest segmentation of a piece of text under a unigram language model (Kudo 2018, algorithm of
/// section 3.2 by Viterbi). Immutable: threads may share one and need a Scratch each.
class UnigramModel {
 public:
  /// Tokens with distinct texts. `byte_tokens` (-1: none) take the place of unknown characters where all
  /// bytes have one; without `unknown_id` an unknown character is an Error of encode_word.
  UnigramModel(const std::vector<TokenizerDefinition::Token>& tokens, std::optional<int32_t> unknown_id,
               std::optional<std::array<int32_t, 256>> byte_tokens);

  /// Working memory of encode_word.
  struct Scratch {
    struct Node {
      double score = 0;
      int64_t begin = -1;  // of the last token of the best way here; -1: none
      int32_t id = 0;
      bool unknown = false;
    };
    std::vector<Node> nodes;
    std::vector<size_t> ends;
  };

  /// Appends the ids of one piece (well-formed UTF-8).
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct End {
    int32_t id = -1;
    double score = 0;
  };
  void add_unknown(std::string_view text, std::vector<int32_t>& ids) const;

  std::unordered_map<uint64_t, int32_t> edges_;  // of a trie over bytes: node << 8 | byte → node
  std::vector<End> ends_;                        // of each node; id -1 where no token ends
  double unknown_score_ = 0;
  std::optional<int32_t> unknown_id_;
  std::optional<std::array<int32_t, 256>> byte_tokens_;
};

}  // namespace qeval::model
