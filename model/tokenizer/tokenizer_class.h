#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "model/tokenizer/definition.h"
#include "model/tokenizer/special_tokens.h"

namespace qeval::model {

/// How transformers 5 (AutoTokenizer, by which lm-evaluation-harness loads a folder) makes a tokenizer of a
/// folder's files: either as tokenizer.json says, or by a class that takes tokens and merges from it and
/// everything else from its own source.
enum class TokenizerClass { kAsFile, kLlama, kGemma, kGpt2, kCodeGen, kGptNeox, kQwen2, kQwen35, kCohere };

/// The class for `folder` by its tokenizer_config.json and the model_type and tokenizer_class of
/// its config.json; `byte_level` says whether it has a tokenizer.json with a ByteLevel step.
TokenizerClass find_tokenizer_class(const std::filesystem::path& folder, bool byte_level);

/// Throws Error where `folder`, which has a tokenizer.model only, names a class that is not supported with
/// it.
void refuse_other_sentencepiece_class(const std::filesystem::path& folder);

/// The model_type of `folder` where the class depends on it, else empty. A folder written for a model of
/// another type keeps it in its tokenizer_config.json, under kSourceModelType.
std::string deciding_model_type(const std::filesystem::path& folder);
inline constexpr std::string_view kSourceModelType = "source_model_type";

/// The tokenizer class that `folder`'s tokenizer_config.json names, else its config.json, without "Fast";
/// empty: none.
std::string tokenizer_class_name(const std::filesystem::path& folder);

/// Adds the special tokens that a class has by default where `config` does not mention their roles.
void add_default_tokens(TokenizerClass tokenizer_class, TokenizerConfig& config);

/// Makes a definition read from a tokenizer.json what `tokenizer_class` makes of it; the class's default
/// special tokens are added to `config`. Throws Error naming `name` for a kind of model that the class cannot
/// hold.
void apply_tokenizer_class(TokenizerClass tokenizer_class, TokenizerConfig& config,
                           TokenizerDefinition& definition, const std::string& name);

/// Adds tokens to a definition as transformers does: a content that is there already stays as it is, one of
/// the vocabulary takes its id, and any other the next free id, whatever id a file gives it.
class TokenAdder {
 public:
  explicit TokenAdder(TokenizerDefinition& definition);

  /// Adds what `config` lists and names, and sets the ids of BOS and EOS.
  void add(const TokenizerConfig& config);
  void add(AddedToken token);
  std::optional<int32_t> find(const std::string& content) const;

 private:
  TokenizerDefinition& definition_;
  std::unordered_map<std::string, int32_t> ids_, added_;
  int32_t next_ = 0;
};

}  // namespace qeval::model
