#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "model/checkpoint/gguf.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::model {

/// A SentencePiece tokenizer from `tokenizer.model`; `folder`, unless empty, has the tokenizer_config.json
/// and friends, which name the class, special and added tokens and say when the dummy space is put and BOS
/// added, as transformers 5 reads them. The model's own control tokens (<s>, </s>) are recognized in text
/// only where those files list them as added tokens, and in prompts. A file alone adds BOS. Throws Error
/// naming the file and what is wrong with it.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file,
                                              const std::filesystem::path& folder);

/// The same rebuilt from a GGUF file whose `tokenizer.ggml.model` is "llama": tokens, scores, token_type.
/// User-defined tokens are recognized in text, control tokens in prompts only. `name` is for messages.
std::unique_ptr<Tokenizer> load_sentencepiece_gguf(const GgufFile& gguf, const std::string& name);

}  // namespace qeval::model
