#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint/gguf.h"

namespace qeval::model {

/// The values of `tokenizer.ggml.token_type`, which are SentencePiece's piece types.
enum class GgufTokenType : int {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

/// What GGUF files of every tokenizer kind say.
struct GgufVocabulary {
  const std::vector<std::string>& tokens;  // the file's; an id is a place in it
  std::vector<GgufTokenType> types;        // as many; all normal where the file has none
  std::optional<int32_t> bos_id = {}, eos_id = {}, unknown_id = {};
  /// The place of the last token with the same text, which is the one that text becomes; of an empty text
  /// none.
  std::vector<int32_t> meant = {};
  std::vector<std::string> warnings = {};  // of ids that are out of range and taken as none
};

/// Throws Error naming `name`, the key and the value that is missing or out of range, or asks for a token
/// behind every text.
GgufVocabulary read_gguf_vocabulary(const GgufFile& gguf, const std::string& name);

}  // namespace qeval::model
