#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/checkpoint/gguf.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe_model.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::model {

/// All that a tokenizer of Hugging Face's kind is made of, wherever it was read: text is normalized, cut into
/// pieces, and each piece becomes tokens by byte pairs (BPE) or by the likeliest segmentation (Unigram).
struct TokenizerDefinition {
  /// A token as its file spells it: in the byte-level alphabet where `byte_level`, added tokens as they are.
  struct Token {
    std::string text;
    int32_t id = 0;
    double score = 0;  // Unigram: its log-probability
  };
  std::vector<Token> vocabulary;  // distinct texts and ids; may repeat added tokens
  bool byte_level = true;         // pieces are taken byte by byte, not character by character
  bool unigram = false;
  std::vector<BpeMerge> merges;  // empty where `unigram`
  bool ignore_merges = false;    // a piece that is a token becomes it, whatever the merges say
  bool whole_newlines = false;   // the same for a piece of nothing but line feeds
  bool byte_fallback = false;    // a character without a token becomes the tokens <0xHH> of its bytes
  bool fuse_unknown = false;     // neighbouring unknown characters become one unknown token
  std::optional<int32_t> unknown_id;

  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStage> pre_tokenizer;

  std::optional<int32_t> bos_id, eos_id;
  std::vector<int32_t> leading_ids;  // what the tokenizer puts before every text

  std::vector<std::string> warnings;  // of what was passed over

  // How ids become text.
  bool spells_spaces = false;        // "▁" in a token is a space
  bool drops_leading_space = false;  // the first space of a text was put there by the tokenizer
};

/// A larger id would make a file of a few bytes cost gigabytes.
constexpr int32_t kMaxTokenId = (1 << 22) - 1;

/// Reads a `tokenizer.json` of the kinds BPE and Unigram; `folder`, unless empty, has the
/// tokenizer_config.json and friends that name special tokens and the class by which the reference
/// implementation loads the file. Throws Error naming the file and the first field that is missing, malformed
/// or not supported.
TokenizerDefinition read_tokenizer_json(const std::filesystem::path& file,
                                        const std::filesystem::path& folder);

/// Reads `tokenizer.model`, a SentencePiece model, of `folder` with tokenizer_config.json and friends, into
/// what the reference implementation (transformers 5) makes of them. Throws Error naming the file and what is
/// wrong or not supported.
TokenizerDefinition read_sentencepiece_folder(const std::filesystem::path& folder);

/// Reads the metadata of a GGUF file whose `tokenizer.ggml.model` is "gpt2" or "gemma4"; `name` is for
/// messages. GGUF does not say how text is to be normalized: it is taken as it is.
TokenizerDefinition read_bpe_gguf(const GgufFile& gguf, const std::string& name);

/// Throws Error naming `name` where the definition contradicts itself.
std::unique_ptr<Tokenizer> make_pipeline_tokenizer(TokenizerDefinition definition, const std::string& name);

/// The lookups that turn merges' spellings into ids while a definition is read. Throws Error naming `name`,
/// the place and the token that is not in the vocabulary.
class MergeReader {
 public:
  MergeReader(const std::vector<TokenizerDefinition::Token>& vocabulary, std::string name);

  BpeMerge read(std::string_view left, std::string_view right, size_t rank) const;
  /// "left right"
  BpeMerge read(std::string_view pair, size_t rank) const;

 private:
  int32_t find(std::string_view token, size_t rank) const;

  std::unordered_map<std::string_view, int32_t> ids_;
  std::string name_;
};

}  // namespace qeval::model
