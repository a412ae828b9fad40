#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/engine/generation.h"
#include "eval/engine/plan.h"
#include "model/decoder.h"
#include "model/finite.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::eval {

/// When a text that is generated is over.
struct TextLimits {
  std::vector<std::string> stops;  ///< before the first of these; none is empty
  std::vector<int32_t> end_ids;    ///< at one of these tokens, which is no part of it
  int64_t max_tokens = 0;          ///< at the latest; at least 1
  SamplingOptions sampling = {};   ///< how tokens are drawn; its seed is not looked at
  /// Of each request its own seed, where tokens are drawn; parallel to the requests.
  std::vector<uint64_t> seeds = {};
};

/// A logit of a text is not finite.
class TextNotFinite : public model::NotFinite {
 public:
  TextNotFinite(const std::string& message, int64_t of) : NotFinite(message), request(of) {}
  int64_t request;  ///< the text's
};

/// A text that is finished.
struct GeneratedText {
  enum class End : uint8_t { stop, eos, length };
  std::vector<int32_t> tokens;          ///< all that were generated, the end's included
  std::vector<uint64_t> logits_hashes;  ///< model::TokenAnswer, per token
  End end = End::length;
};

/// The text of generated tokens as transformers decodes them without special tokens: bytes that are no UTF-8
/// are U+FFFD, and everything from the first stop string on is cut off, for one stop string after another, as
/// lm-evaluation-harness does.
std::string answer_text(const model::Tokenizer& tokenizer, std::span<const int32_t> tokens,
                        std::span<const std::string> stops);

/// Continues many prompts, many at once: what prompts share is computed once, each then has keys and
/// values of its own in pages, which are given back when its text is over, and another prompt takes its
/// place. What a prompt becomes depends on none of that.
class GenerationRun {
 public:
  /// `prompts.requests()` are the prompts, each with one token more that is not looked at (Plan's requests
  /// end in a token that is no input). A prompt and max_tokens must fit into the model's context. At most
  /// about `kv_bytes` bytes of keys and values are held at once; of more than one text, at least one always
  /// is.
  GenerationRun(model::Decoder& decoder, const model::Tokenizer& tokenizer, const Plan& prompts,
                TextLimits limits, int64_t batch_tokens, int64_t kv_bytes);
  ~GenerationRun();
  GenerationRun(const GenerationRun&) = delete;
  GenerationRun& operator=(const GenerationRun&) = delete;

  bool done() const { return open_ == 0; }
  /// One pass: a token more for every text under way, and prompts for as many more as there is room for.
  /// Returns the requests whose texts are finished, in ascending order. Throws TextNotFinite naming the layer
  /// where a logit is not finite.
  std::vector<int64_t> step();
  /// The text of a finished request; releases it.
  GeneratedText take(int64_t request);

  /// Tokens of prompts, and of texts (those that an early end saved count as done), out of tokens_to_do().
  int64_t tokens_done() const { return tokens_done_; }
  int64_t tokens_to_do() const;
  /// Bytes of keys and values that are held or promised.
  int64_t held_bytes() const { return held_bytes_; }

 private:
  struct Sequence;
  struct Asked;  ///< rows of a batch and the sequences that wait for them

  int64_t span_bytes(int64_t tokens) const;
  /// Whether the next piece of a prompt, and the texts that it completes, fit.
  bool has_room(const Plan::Piece& piece) const;
  int64_t promised_bytes(const Plan::Piece& piece) const;
  void add_next_tokens(model::Batch& batch, Asked& asked);
  void add_prompts(model::Batch& batch, Asked& asked);
  void add_piece(int64_t index, model::Batch& batch, Asked& asked);
  std::vector<model::Segment::Ancestor> ancestors_of(int64_t piece) const;
  /// Gives back a piece and those above it that nothing hangs under any more.
  void release(int64_t piece);
  /// Keeps a token; whether the text is over with it.
  bool append(Sequence& sequence, int32_t token, uint64_t logits_hash);
  bool ends_in_stop(const Sequence& sequence) const;
  [[noreturn]] void refuse_not_finite(const Sequence& sequence) const;

  model::Decoder& decoder_;
  const model::Tokenizer& tokenizer_;
  const Plan& prompts_;
  TextLimits limits_;
  int64_t batch_tokens_, kv_bytes_;
  size_t longest_stop_ = 0;                            ///< bytes
  std::vector<std::unique_ptr<model::KvSpan>> spans_;  ///< per piece, while something hangs under it
  std::vector<int64_t> users_;                         ///< per piece: pieces and texts that hang under it
  std::vector<std::unique_ptr<Sequence>> active_;      ///< texts under way, in the order they began
  std::vector<GeneratedText> finished_;                ///< per request
  int64_t next_piece_ = 0;
  int64_t open_ = 0;  ///< requests that are not finished
  int64_t held_bytes_ = 0, tokens_done_ = 0;
};

}  // namespace qeval::eval
