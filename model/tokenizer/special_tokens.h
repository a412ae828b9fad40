#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/added_tokens.h"

namespace qeval::model {

/// The roles of special tokens, in the order in which transformers adds them.
inline constexpr std::array<std::string_view, 7> kSpecialTokenRoles = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

/// A special token as a configuration names it; its id is that of its content in the vocabulary.
struct NamedSpecialToken {
  std::string role;                      // "bos_token", "eos_token", …; empty: an additional one
  std::optional<AddedToken> token = {};  // none: the configuration says that there is none
};

/// What the small files beside a Hugging Face tokenizer say. Everything may be missing.
struct TokenizerConfig {
  std::vector<NamedSpecialToken> special_tokens;
  std::optional<bool> add_bos_token;
  bool add_eos_token = false;
  std::optional<bool> add_prefix_space;
  /// Whether each stretch of text between added tokens begins with SentencePiece's dummy space, as it did in
  /// transformers before 4.31. `null` is false.
  std::optional<bool> legacy;
  std::vector<AddedToken> added_tokens;  // by ascending id, ids distinct
  bool lists_additional_tokens =
      false;  // there is a list of special tokens without roles, if only an empty one

  /// The content of a token with a role; nullopt where none is named or the file says that there is none.
  std::optional<std::string> content_of(std::string_view role) const;
};

/// Reads tokenizer_config.json, special_tokens_map.json (where the former has no added_tokens_decoder) and
/// added_tokens.json of `folder`. Throws Error naming the file and the malformed field.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

}  // namespace qeval::model
