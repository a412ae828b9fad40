#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::model {

/// Text to token ids and back. Immutable after loading: any number of threads may encode. One of the
/// project's three inheritance seams.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of `text` (well-formed UTF-8, else Error), without the special tokens that a model wraps around a
  /// text. Added tokens spelt out in the text become their ids. Control tokens of a SentencePiece model (<s>)
  /// are text, as the SentencePiece library has it, unless the files beside it list them as added tokens.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;

  /// The same for a text that is composed for the model, like a chat template's: whatever control token is
  /// spelt out in it is meant.
  virtual std::vector<int32_t> encode_prompt(std::string_view text) const { return encode(text); }

  /// Bytes of the ids, special tokens spelt out; a single token may be a part of a UTF-8 character.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;

  /// One more than the largest id.
  virtual int32_t vocab_size() const = 0;

  /// "SentencePiece" or "byte-level BPE", for `inspect` and messages.
  virtual std::string_view kind() const = 0;

  std::optional<int32_t> bos_id() const { return bos_id_; }
  std::optional<int32_t> eos_id() const { return eos_id_; }
  /// Whether the model's own convention puts BOS in front of every text (Llama and Gemma do; SmolLM2,
  /// StableLM-2 do not).
  bool adds_bos() const { return adds_bos_; }
  /// SHA-256 of all that decides the ids.
  const std::string& hash() const { return hash_; }

 protected:
  std::optional<int32_t> bos_id_, eos_id_;
  bool adds_bos_ = false;
  std::string hash_;
};

/// Loads the tokenizer of a model folder (`tokenizer.model`, else `tokenizer.json`, with
/// `tokenizer_config.json` and friends, else the vocabulary file `tokenizer.gguf`), of a GGUF file (model or
/// vocabulary only), or a bare `tokenizer.json` / `tokenizer.model`. Throws Error naming the file and what is
/// missing or unsupported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

}  // namespace qeval::model
