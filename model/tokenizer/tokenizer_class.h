#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "model/tokenizer/definition.h"
#include "model/tokenizer/special_tokens.h"

namespace qeval::model {

/// How transformers 5 (AutoTokenizer, by which lm-evaluation-harness loads a folder) makes a tokenizer of a
/// folder's files: either as tokenizer.json says, or by a class that takes tokens and merges from it and
/// everything else from its own source.
enum class TokenizerClass { kAsFile, kLlama, kGemma, kGpt2, kCodeGen, kGptNeox, kQwen2, kQwen35, kCohere };

/// The class for `folder` by its tokenizer_config.json (`config`) and the model_type of its config.json;
/// `byte_level` says whether it has a tokenizer.json with a ByteLevel step.
TokenizerClass find_tokenizer_class(const std::filesystem::path& folder, const TokenizerConfig& config,
                                    bool byte_level);

/// The model_type of `folder` where the class depends on it, else empty. A folder written for a model of
/// another type keeps it in its tokenizer_config.json, under kSourceModelType.
std::string deciding_model_type(const std::filesystem::path& folder);
inline constexpr std::string_view kSourceModelType = "source_model_type";

/// Adds the special tokens that a class has by default where `config` does not mention their roles.
void add_default_tokens(TokenizerClass tokenizer_class, TokenizerConfig& config);

/// Makes a definition read from a tokenizer.json what `tokenizer_class` makes of it; the class's default
/// special tokens are added to `config`. Throws Error naming `name` for a kind of model that the class cannot
/// hold.
void apply_tokenizer_class(TokenizerClass tokenizer_class, TokenizerConfig& config,
                           TokenizerDefinition& definition, const std::string& name);

}  // namespace qeval::model
