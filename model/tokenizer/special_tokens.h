#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/tokenizer/added_tokens.h"

namespace qeval::model {

/// What the small files beside a Hugging Face tokenizer say. Everything may be missing.
struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token;  // contents
  std::optional<bool> add_bos_token;
  /// Whether each stretch of text between added tokens begins with SentencePiece's dummy space, as it did in
  /// transformers before 4.31 and still does where `legacy` is not false.
  bool legacy = true;
  std::vector<AddedToken> added_tokens;  // by ascending id, ids distinct
};

/// Reads tokenizer_config.json, special_tokens_map.json (for BOS and EOS that the former does not mention)
/// and added_tokens.json of `folder`. Throws Error naming the file and the malformed field, or one that asks
/// for a token behind every text.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

}  // namespace qeval::model
