#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "model/checkpoint/gguf.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::model {

/// A `tokenizer.model` without anything beside it, with the SentencePiece library's ids. The model's own
/// control tokens (<s>, </s>) are recognized in prompts only; BOS is added. Throws Error naming the file and
/// what is wrong with it. A folder's is another matter: read_sentencepiece_folder.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file);

/// The same rebuilt from a GGUF file whose `tokenizer.ggml.model` is "llama": tokens, scores, token_type.
/// User-defined tokens are recognized in text, control tokens in prompts only. `name` is for messages.
std::unique_ptr<Tokenizer> load_sentencepiece_gguf(const GgufFile& gguf, const std::string& name);

}  // namespace qeval::model
