#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint/gguf.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe_model.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::model {

/// All that a byte-level BPE tokenizer is made of, wherever it was read.
struct BpeDefinition {
  /// A token as its file spells it: bytes in the byte-level alphabet, added tokens as they are.
  struct Token {
    std::string text;
    int32_t id = 0;
  };
  std::vector<Token> vocabulary;  // distinct texts and ids; may repeat added tokens
  std::vector<BpeMerge> merges;
  std::vector<AddedToken> added_tokens;
  std::vector<PreTokenizerStage> pre_tokenizer;
  bool nfc = false;  // normalize text to Unicode's form C
  bool ignore_merges = false;
  std::optional<int32_t> bos_id, eos_id;
  bool adds_bos = false;
};

/// A larger id would make a file of a few bytes cost gigabytes.
constexpr int32_t kMaxTokenId = (1 << 22) - 1;

/// Reads a byte-level BPE `tokenizer.json`; `folder`, unless empty, has the tokenizer_config.json and friends
/// that name BOS and EOS. Throws Error naming the file and the first field that is missing, malformed or not
/// supported.
BpeDefinition read_bpe_json(const std::filesystem::path& file, const std::filesystem::path& folder);

/// Reads the metadata of a GGUF file whose `tokenizer.ggml.model` is "gpt2"; `name` is for messages. GGUF
/// does not say how text is to be normalized: it is taken as it is.
BpeDefinition read_bpe_gguf(const GgufFile& gguf, const std::string& name);

/// Throws Error naming `name` where the definition contradicts itself.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeDefinition definition, const std::string& name);

/// The lookups that turn merges' spellings into ids while a definition is read. Throws Error naming `name`,
/// the place and the token that is not in the vocabulary.
class MergeReader {
 public:
  MergeReader(const std::vector<BpeDefinition::Token>& vocabulary, std::string name);

  BpeMerge read(std::string_view left, std::string_view right, size_t rank) const;
  /// "left right"
  BpeMerge read(std::string_view pair, size_t rank) const;

 private:
  int32_t find(std::string_view token, size_t rank) const;

  std::unordered_map<std::string_view, int32_t> ids_;
  std::string name_;
};

}  // namespace qeval::model
