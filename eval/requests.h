#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/engine/plan.h"
#include "eval/tasks/task.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::eval {

class Session;

/// What an empty context becomes (`--prefix-token`).
enum class PrefixToken : uint8_t { automatic, bos, eos, none };

/// Whether BOS goes in front of texts (`--add-bos-token`) instead of what the tokenizer puts there.
enum class AddBos : uint8_t {
  never,
  texts,  ///< of every text
  always  ///< of every sequence: windows of a long text and what a cut left over begin with it as well
};

/// A request in tokens. Where max_length cut the context, `truncated` tokens are missing from its left.
struct EncodedRequest {
  TokenRequest tokens;
  int64_t truncated = 0;
  bool encoded_apart = false;  ///< a token spanned the join, so the two parts were encoded each alone
};

/// Drops tokens from the left so that at most `max_length` remain as input, and returns how many went. A
/// scored part that alone exceeds max_length is an Error.
int64_t truncate_left(TokenRequest& request, int64_t max_length);

/// Turns text into tokens to score, as docs/tasks.md#one-request and docs/tasks.md#a-long-text say.
class RequestEncoder {
 public:
  /// Input length is limited to `max_length` ≥ 1 tokens. A prefix token that is asked for and that the
  /// tokenizer lacks is an Error; where the choice is left open and there is neither BOS nor EOS, only a
  /// request that needs it is. `add_bos`: AddBos, of protocol lm-eval-0.4 but for `always`, which without a
  /// BOS takes EOS. `composed`: texts are a chat template's, whose control tokens
  /// are meant.
  RequestEncoder(const model::Tokenizer& tokenizer, Protocol protocol, PrefixToken prefix, int64_t max_length,
                 std::optional<AddBos> add_bos = std::nullopt, bool composed = false);

  /// Throws Error where there is nothing to score or no context, or the continuation alone exceeds
  /// max_length.
  EncodedRequest encode(const TextRequest& request) const;

  /// A prompt that at most `max_tokens` are generated after, whose left end goes where both do not fit into
  /// max_length; its tokens and one more, that is no input. Throws Error where there is no prompt, or no room
  /// for any.
  EncodedRequest encode_prompt(std::string_view prompt, int64_t max_tokens) const;

  /// An answer behind a prompt that a chat template wrote: scored are the tokens of the whole text that the
  /// prompt alone does not have, up to the last of `ends` among them. Throws Error where none are left, or
  /// they exceed max_length.
  EncodedRequest encode_answer(std::string_view prompt, std::string_view answer,
                               std::span<const int32_t> ends) const;

  /// The windows of a document, in order; none for an empty one.
  std::vector<TokenRequest> windows(std::string_view document) const;

  /// For the results: "bos (1)", "eos (2)", "none".
  std::string prefix_policy() const;
  /// For the results: "true", "false", "always"; empty where it is left to the tokenizer.
  std::string add_bos_policy() const;

 private:
  std::vector<int32_t> encode_text(std::string_view text) const;
  std::vector<int32_t> encode_with_special(std::string_view text) const;
  /// truncate_left; what is left begins as every sequence must.
  int64_t truncate(TokenRequest& request, int64_t max_length) const;
  [[noreturn]] void fail_without_prefix(std::string_view what) const;

  const model::Tokenizer& tokenizer_;
  Protocol protocol_;
  int64_t max_length_;
  std::optional<int32_t> prefix_id_;
  std::string prefix_name_;
  bool prefix_refused_ = false;  // by --prefix-token none
  std::optional<AddBos> add_bos_;
  bool composed_;
  std::optional<int32_t> start_id_;   // of every sequence
  std::vector<int32_t> leading_ids_;  // what goes in front of every text
};

/// The setting that a session's scores need: `given`, or always where the model has a prefix.
std::optional<AddBos> add_bos_for(const Session& session, std::optional<AddBos> given);

/// First 16 hexadecimal digits of a SHA-256 over the token ids of requests: equal only for the same ids and
/// the same scored part.
std::string token_hash(std::span<const TokenRequest> requests);

}  // namespace qeval::eval
