#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace qeval::model {

/// Text to token ids and back. Immutable after loading: any number of threads may encode. One of the
/// project's three inheritance seams.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of `text` (well-formed UTF-8, else Error), without the special tokens that a model wraps around a
  /// text. Added tokens spelt out in the text become their ids. Control tokens (<s>) of a bare SentencePiece
  /// model, or one from GGUF, are text, as the SentencePiece library has it.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;

  /// The same for a text that is composed for the model, like a chat template's: whatever control token is
  /// spelt out in it is meant.
  virtual std::vector<int32_t> encode_prompt(std::string_view text) const { return encode(text); }

  /// Bytes of the ids, special tokens spelt out; a single token may be a part of a UTF-8 character.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;

  /// One more than the largest id.
  virtual int32_t vocab_size() const = 0;

  /// "SentencePiece", "byte-level BPE", "BPE" or "Unigram", for `inspect` and messages.
  virtual std::string_view kind() const = 0;

  /// Whether a token is no text of its own but a sign to the model (<s>, <|im_end|>): what transformers
  /// leaves out where it decodes without special tokens.
  bool is_special(int32_t id) const { return special_ids_.contains(id); }

  std::optional<int32_t> bos_id() const { return bos_id_; }
  std::optional<int32_t> eos_id() const { return eos_id_; }
  /// What the model's own convention puts in front of every text: BOS for Llama and Gemma, other tokens for
  /// GLM, nothing for SmolLM2 and StableLM-2.
  std::span<const int32_t> leading_ids() const { return leading_ids_; }
  bool adds_bos() const { return !leading_ids_.empty(); }
  /// What is odd about the files and was passed over; a command prints it.
  const std::vector<std::string>& warnings() const { return warnings_; }
  /// SHA-256 of all that decides the ids.
  const std::string& hash() const { return hash_; }

 protected:
  std::optional<int32_t> bos_id_, eos_id_;
  std::vector<int32_t> leading_ids_;
  std::unordered_set<int32_t> special_ids_;
  std::string hash_;
  std::vector<std::string> warnings_;
};

/// Puts `leading` in front of `ids`, unless they begin with the same token already.
void put_in_front(std::span<const int32_t> leading, std::vector<int32_t>& ids);

/// Loads the tokenizer of a model folder (`tokenizer.json`, else `tokenizer.model`, with
/// `tokenizer_config.json` and friends, else the vocabulary file `tokenizer.gguf`), of a GGUF file (model or
/// vocabulary only), or a bare `tokenizer.json` / `tokenizer.model`. Throws Error naming the file and what is
/// missing or unsupported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

/// The same for a model with embeddings of `vocab_size` tokens. A tokenizer may have more (for padding, or of
/// another model): an id beyond the embeddings is an Error of the text that has it, and BOS and EOS beyond
/// them count as none, with a warning.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path, int64_t vocab_size);

}  // namespace qeval::model
