#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "model/decoder.h"

namespace qeval::eval {

/// A text under way: its keys and values are kept, so that each further token costs one row. Not thread-safe.
class Generator {
 public:
  /// Room for `capacity` tokens (at least 1; Error beyond the model's context). `decoder` must outlive it.
  Generator(model::Decoder& decoder, int64_t capacity);

  /// Appends `tokens` (at least one; Error where the room is used up, or for an id that the model lacks) and
  /// returns the logits [vocab_size] of what comes next. Throws NotFinite where one of them is not finite.
  std::vector<float> extend(std::span<const int32_t> tokens);

  int64_t length() const { return std::ssize(tokens_); }
  int64_t capacity() const { return span_.capacity(); }
  /// Bytes that keys and values take at full length.
  int64_t kv_bytes() const;

 private:
  model::Decoder& decoder_;
  model::KvSpan span_;
  std::vector<int32_t> tokens_;  // the text so far
};

/// How long the parts of a generation took.
struct GenerationSeconds {
  double prompt = 0;             ///< until the logits of the first new token
  std::vector<double> passes{};  ///< of each token that was appended
};

/// The loop of everything that generates: appends `prompt` in parts of `batch` tokens, then asks `next` with
/// the logits of what comes next and appends the token that it returns, until it returns none. `next` sees
/// every logits once, so the last token of an answer needs no pass: it is kept, and nothing returned.
/// `before_pass` is called before each pass; what it throws ends the loop.
GenerationSeconds generate(
    Generator& generator, std::span<const int32_t> prompt, int64_t batch,
    const std::function<std::optional<int32_t>(std::span<const float> logits)>& next,
    const std::function<void()>& before_pass = [] {});

/// How the next token is drawn.
struct SamplingOptions {
  double temperature = 0;  ///< 0: greedy, the first arg-max. Logits are divided by it
  int64_t top_k = 0;       ///< among the k most likely only; 0: all
  double top_p = 1;        ///< among the most likely whose probabilities add up to p (Holtzman et al. 2020)
  uint64_t seed = 0;
};

/// Draws tokens; the same seed and logits give the same tokens on every machine.
class Sampler {
 public:
  /// Throws Error for a negative temperature or k, or p outside (0, 1].
  explicit Sampler(const SamplingOptions& options);

  /// The next token; Error where no logit is a number, or the largest is infinite and a token is to be drawn.
  int32_t draw(std::span<const float> logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
};

}  // namespace qeval::eval
