#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "model/decoder.h"

namespace qeval::model {

/// A text under way: its keys and values are kept, so that each further token costs one row. Not thread-safe.
class Generator {
 public:
  /// Room for `capacity` tokens (at least 1; Error beyond the model's context). `decoder` must outlive it.
  Generator(Decoder& decoder, int64_t capacity);

  /// Appends `tokens` (at least one; Error where the room is used up, or for an id that the model lacks) and
  /// returns the logits [vocab_size] of what comes next. Throws NotFinite where one of them is not finite.
  std::vector<float> extend(std::span<const int32_t> tokens);

  int64_t length() const { return std::ssize(tokens_); }
  int64_t capacity() const { return span_.capacity(); }
  /// Bytes that keys and values take at full length.
  int64_t kv_bytes() const;

 private:
  Decoder& decoder_;
  KvSpan span_;
  std::vector<int32_t> tokens_;  // the text so far
};

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

}  // namespace qeval::model
