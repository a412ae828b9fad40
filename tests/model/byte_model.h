#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace qeval::test {

/// Number of ids of the tiny tokenizer: all bytes, and an end-of-text token.
constexpr int64_t kTokens = 257;

/// tokenizer.json of a byte-level BPE without merges: the byte b is the token b, and 256 is "<end>".
std::string byte_tokenizer();
/// The weights of the tiny model (fixtures.h) with these tokens, as a safetensors file.
std::string tiny_weights();
std::string tiny_model_config();

/// All of it in a new folder, as a model is published.
void write_byte_model(const std::filesystem::path& folder);

}  // namespace qeval::test
