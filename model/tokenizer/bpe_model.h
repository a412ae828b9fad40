#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qeval::model {

/// A merge of two neighbouring tokens into one; its rank is its place in the list, the lowest goes first.
struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
};

/// A token by its bytes.
struct BpeToken {
  std::string bytes;
  int32_t id = 0;
};

/// What a BpeModel does beside merging.
struct BpeOptions {
  bool ignore_merges = false;   // a word that is a token becomes it, whatever the merges say
  bool whole_newlines = false;  // so does a word of nothing but line feeds
  bool characters = false;      // words are merged from characters (UTF-8), not from bytes
  /// A character without a token becomes the tokens of its bytes, where all of them have one here (-1: none).
  std::optional<std::array<int32_t, 256>> byte_tokens = {};
  /// What else becomes of a byte or character without a token; none: it is left out of the ids, as other
  /// implementations do.
  std::optional<int32_t> unknown_id = {};
  bool fuse_unknown = false;  // neighbours without a token become one unknown token
};

/// Byte-pair encoding of single words (Sennrich et al. 2016, on bytes as in GPT-2 or on characters as in
/// SentencePiece). Immutable: threads may share one and need a Scratch each.
class BpeModel {
 public:
  /// `tokens`: those that text can become, with distinct bytes.
  BpeModel(std::vector<BpeToken> tokens, const std::vector<BpeMerge>& merges, BpeOptions options);

  /// Working memory of encode_word.
  struct Scratch {
    struct Symbol {
      int32_t id;
      int32_t previous;  // -1: none
      int32_t next;      // -1: none
      int32_t rank;      // of the merge with `next`; kNoMerge: none, or this symbol is gone
      int32_t result;
    };
    struct Candidate {
      int32_t rank;
      int32_t position;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  /// Appends the ids of one word of less than 2³¹ bytes. O(n log n) in its length, whatever it holds.
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct MergeSlot {
    uint64_t pair;
    int32_t rank;
    int32_t result;
  };
  struct WordEntry {
    int32_t id;
    bool whole;  // the word's ids are just this one
  };

  void add_symbols(std::string_view word, Scratch& scratch) const;
  const MergeSlot* find_merge(int32_t left, int32_t right) const;
  void set_merge_with_next(Scratch& scratch, int32_t position) const;
  void merge_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

  std::vector<BpeToken> tokens_;
  BpeOptions options_;
  std::array<int32_t, 256> byte_ids_{};  // -1: no token spells the byte
  std::vector<MergeSlot> merges_;        // open addressing, a power of two, at most half full
  int merge_shift_ = 0;
  // Most words of a text are a token. Whether merging the word gives that token is found out once, here.
  std::unordered_map<std::string_view, WordEntry> words_;
};

}  // namespace qeval::model
