#include "eval/engine/generation.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "model/finite.h"

namespace qeval::eval {
namespace {

int64_t checked_capacity(const model::Decoder& decoder, int64_t capacity) {
  const int64_t context = decoder.model().config.max_position_embeddings;
  if (capacity < 1 || capacity > context) {
    fail("{} tokens of prompt and answer; accepted: 1 to {}, the model's context", capacity, context);
  }
  return capacity;
}

struct Candidate {
  int32_t token;
  double weight;  ///< exp((logit − largest) / temperature)
};

}  // namespace

Generator::Generator(model::Decoder& decoder, int64_t capacity)
    : decoder_(decoder),
      span_(decoder.arithmetic(), checked_capacity(decoder, capacity), decoder.model().config.num_layers) {}

std::vector<float> Generator::extend(std::span<const int32_t> tokens) {
  if (tokens.empty()) fail("nothing to continue: the text has no tokens");
  if (std::ssize(tokens) > capacity() - length()) {
    fail("{} tokens after {}; there is room for {}", tokens.size(), length(), capacity());
  }
  const int64_t vocabulary = decoder_.model().config.vocab_size;
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocabulary) fail("token {}; accepted: 0 to {}", token, vocabulary - 1);
  }
  constexpr int64_t kBatch = 2048;  // a bound of the activations' memory; no number depends on it
  int64_t row = 0;
  for (int64_t first = 0; first < std::ssize(tokens); first += kBatch) {
    const auto part = tokens.subspan(static_cast<size_t>(first),
                                     static_cast<size_t>(std::min(kBatch, std::ssize(tokens) - first)));
    model::Batch batch;
    batch.tokens.assign(part.begin(), part.end());
    for (int64_t i = 0; i < std::ssize(part); ++i) {
      batch.positions.push_back(static_cast<int32_t>(length() + i));
    }
    // A rotary embedding that depends on the length takes what is known of the text so far.
    if (decoder_.model().config.depends_on_length()) {
      batch.lengths.assign(batch.tokens.size(), static_cast<int32_t>(length() + std::ssize(tokens) - first));
    }
    batch.segments.push_back(
        {.length = std::ssize(part), .first_position = length(), .kv = &span_, .kv_at = length()});
    row = std::ssize(part) - 1;
    batch.read.emplace({row});
    decoder_.forward(batch);
    tokens_.insert(tokens_.end(), part.begin(), part.end());
  }
  std::vector<float> logits = decoder_.logits({&row, 1});
  const auto bad = std::ranges::find_if(logits, [](float logit) { return !std::isfinite(logit); });
  if (bad != logits.end()) {
    throw model::NotFinite(
        fmt::format("a logit of the next token is {}: the first value that is not finite is in {}",
                    model::not_finite_text(static_cast<double>(*bad)),
                    model::first_not_finite(decoder_.model(), decoder_.arithmetic(), tokens_)));
  }
  return logits;
}

int64_t Generator::kv_bytes() const {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < decoder_.arithmetic().layers(); ++layer) {
    bytes += decoder_.arithmetic().kv_bytes(layer, capacity());
  }
  return bytes;
}

GenerationSeconds generate(Generator& generator, std::span<const int32_t> prompt, int64_t batch,
                           const std::function<std::optional<int32_t>(std::span<const float>)>& next,
                           const std::function<void()>& before_pass) {
  using Clock = std::chrono::steady_clock;
  std::vector<float> logits;
  const auto append = [&](std::span<const int32_t> tokens) {
    before_pass();
    const Clock::time_point start = Clock::now();
    logits = generator.extend(tokens);
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  GenerationSeconds seconds;
  for (; !prompt.empty(); prompt = prompt.subspan(std::min(prompt.size(), static_cast<size_t>(batch)))) {
    seconds.prompt += append(prompt.first(std::min(prompt.size(), static_cast<size_t>(batch))));
  }
  while (const std::optional<int32_t> token = next(logits)) seconds.passes.push_back(append({{*token}}));
  return seconds;
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    fail("temperature {}; accepted: 0 (greedy) or more", options.temperature);
  }
  if (options.top_k < 0) fail("top-k {}; accepted: 0 (all) or more", options.top_k);
  if (!(options.top_p > 0 && options.top_p <= 1)) fail("top-p {}; accepted: above 0, to 1", options.top_p);
}

int32_t Sampler::draw(std::span<const float> logits) {
  int32_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isnan(logits[i]) && (best < 0 || logits[i] > logits[static_cast<size_t>(best)])) {
      best = static_cast<int32_t>(i);
    }
  }
  if (best < 0) fail("no logit is a number: the model computes NaN");
  if (options_.temperature == 0) return best;

  std::vector<Candidate> candidates;
  const double largest = static_cast<double>(logits[static_cast<size_t>(best)]);
  if (!std::isfinite(largest)) fail("the largest logit is {}: nothing can be drawn", largest);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((static_cast<double>(logits[i]) - largest) / options_.temperature);
    if (weight > 0) candidates.push_back({static_cast<int32_t>(i), weight});
  }
  std::ranges::stable_sort(candidates, std::greater<>(), &Candidate::weight);
  if (options_.top_k > 0 && std::ssize(candidates) > options_.top_k) {
    candidates.resize(static_cast<size_t>(options_.top_k));
  }
  double total = 0;
  for (const Candidate& c : candidates) total += c.weight;
  double kept = 0;
  size_t count = 0;
  while (count < candidates.size() && kept < options_.top_p * total) kept += candidates[count++].weight;
  // 53 random bits by hand: the standard's distributions differ between libraries.
  const double point = static_cast<double>(random_() >> 11) * 0x1p-53 * kept;
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += candidates[i].weight;
    if (point < sum) return candidates[i].token;
  }
  return candidates[count - 1].token;
}

}  // namespace qeval::eval
