#include "eval/engine/shared_decoder.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "model/finite.h"

namespace qeval::eval {
namespace {

/// How long a pass waits for the texts that are about to ask for their next token. A pass takes longer.
constexpr std::chrono::milliseconds kGrace{2};
/// How often a text that waits for memory looks whether it is still wanted.
constexpr std::chrono::milliseconds kLook{100};

}  // namespace

SharedDecoder::SharedDecoder(model::Decoder& decoder, int64_t batch_tokens, int64_t kv_bytes)
    : decoder_(decoder), batch_tokens_(batch_tokens), kv_bytes_(kv_bytes) {}

int64_t SharedDecoder::span_bytes(int64_t tokens) const {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < decoder_.arithmetic().layers(); ++layer)
    bytes += decoder_.arithmetic().kv_bytes(layer, tokens);
  return bytes;
}

void SharedDecoder::admit(int64_t bytes, const std::function<void()>& waiting) {
  std::unique_lock lock(mutex_);
  const uint64_t ticket = next_ticket_++;
  const auto may_begin = [&] {
    return ticket == served_ticket_ && (texts_ == 0 || held_bytes_ + bytes <= kv_bytes_);
  };
  while (!may_begin()) {
    changed_.wait_for(lock, kLook);
    lock.unlock();
    try {
      waiting();
    } catch (...) {
      // Those behind wait for this ticket: it is served as soon as it is its turn, by nobody.
      lock.lock();
      changed_.wait(lock, [&] { return ticket == served_ticket_; });
      ++served_ticket_;
      changed_.notify_all();
      throw;
    }
    lock.lock();
  }
  ++served_ticket_;
  ++texts_;
  held_bytes_ += bytes;
  changed_.notify_all();
}

void SharedDecoder::leave(int64_t bytes) {
  const std::scoped_lock lock(mutex_);
  --texts_;
  held_bytes_ -= bytes;
  changed_.notify_all();
}

SharedDecoder::Text::Text(SharedDecoder& shared, int64_t capacity, const std::function<void()>& waiting)
    : shared_(shared), bytes_(0) {
  const int64_t context = shared.decoder_.model().config.max_position_embeddings;
  if (capacity < 1 || capacity > context)
    fail("{} tokens of prompt and answer; accepted: 1 to {}, the model's context", capacity, context);
  const int64_t bytes = shared.span_bytes(capacity);
  shared.admit(bytes, waiting);
  bytes_ = bytes;
  try {
    span_.emplace(shared.decoder_.arithmetic(), capacity, shared.decoder_.model().config.num_layers);
  } catch (...) {
    shared.leave(bytes_);
    throw;
  }
}

SharedDecoder::Text::~Text() {
  span_.reset();
  shared_.leave(bytes_);
}

std::vector<float> SharedDecoder::Text::extend(std::span<const int32_t> tokens) {
  if (tokens.empty()) fail("nothing to continue: the text has no tokens");
  if (std::ssize(tokens) > span_->capacity() - length())
    fail("{} tokens after {}; there is room for {}", tokens.size(), length(), span_->capacity());
  const int64_t vocabulary = shared_.decoder_.model().config.vocab_size;
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocabulary) fail("token {}; accepted: 0 to {}", token, vocabulary - 1);
  }
  Wish wish{this, tokens};
  std::unique_lock lock(shared_.mutex_);
  shared_.wishes_.push_back(&wish);
  shared_.changed_.notify_all();
  while (!wish.done) {
    if (shared_.busy_ || (shared_.alone_waiting_ > 0 && !shared_.turn_of_texts_)) {
      shared_.changed_.wait(lock);
      continue;
    }
    shared_.busy_ = true;
    shared_.changed_.wait_for(lock, kGrace, [&] { return std::ssize(shared_.wishes_) >= shared_.texts_; });
    const std::vector<Wish*> wishes = shared_.take_wishes();
    lock.unlock();
    shared_.compute(wishes);
    lock.lock();
    for (Wish* each : wishes) each->done = true;
    shared_.busy_ = false;
    shared_.turn_of_texts_ = false;
    shared_.changed_.notify_all();
  }
  if (wish.error) std::rethrow_exception(wish.error);
  return std::move(wish.logits);
}

std::vector<SharedDecoder::Wish*> SharedDecoder::take_wishes() {
  std::vector<Wish*> out;
  int64_t tokens = 0;
  while (!wishes_.empty() && (out.empty() || tokens + std::ssize(wishes_.front()->tokens) <= batch_tokens_)) {
    out.push_back(wishes_.front());
    tokens += std::ssize(out.back()->tokens);
    wishes_.pop_front();
  }
  return out;
}

void SharedDecoder::compute(std::span<Wish* const> wishes) {
  try {
    compute_batch(wishes);
  } catch (...) {
    for (Wish* wish : wishes) wish->error = std::current_exception();
  }
}

void SharedDecoder::compute_batch(std::span<Wish* const> wishes) {
  model::Batch batch;
  std::vector<int64_t> rows;
  for (const Wish* wish : wishes) {
    Text& text = *wish->text;
    const int64_t length = std::ssize(wish->tokens);
    batch.segments.push_back({.first_row = std::ssize(batch.tokens),
                              .length = length,
                              .first_position = text.length(),
                              .kv = &*text.span_,
                              .kv_at = text.length()});
    batch.tokens.insert(batch.tokens.end(), wish->tokens.begin(), wish->tokens.end());
    for (int64_t i = 0; i < length; ++i) batch.positions.push_back(static_cast<int32_t>(text.length() + i));
    if (decoder_.model().config.depends_on_length())
      batch.lengths.insert(batch.lengths.end(), wish->tokens.size(),
                           static_cast<int32_t>(text.length() + length));
    rows.push_back(std::ssize(batch.tokens) - 1);
  }
  batch.read = rows;
  decoder_.forward(batch);
  const std::vector<float> logits = decoder_.logits(rows);
  const auto vocabulary = static_cast<size_t>(decoder_.model().config.vocab_size);
  for (size_t i = 0; i < wishes.size(); ++i) {
    Wish& wish = *wishes[i];
    Text& text = *wish.text;
    text.tokens_.insert(text.tokens_.end(), wish.tokens.begin(), wish.tokens.end());
    const std::span<const float> own = std::span(logits).subspan(i * vocabulary, vocabulary);
    wish.logits.assign(own.begin(), own.end());
    const auto bad = std::ranges::find_if(own, [](float logit) { return !std::isfinite(logit); });
    if (bad == own.end()) continue;
    wish.error = std::make_exception_ptr(model::NotFinite(
        fmt::format("a logit of the next token is {}: the first value that is not finite is in {}",
                    model::not_finite_text(static_cast<double>(*bad)),
                    model::first_not_finite(decoder_.model(), decoder_.arithmetic(), text.tokens_))));
  }
}

SharedDecoder::Alone::Alone(SharedDecoder& shared) : shared_(shared) {
  std::unique_lock lock(shared_.mutex_);
  ++shared_.alone_waiting_;
  shared_.changed_.wait(
      lock, [&] { return !shared_.busy_ && (!shared_.turn_of_texts_ || shared_.wishes_.empty()); });
  --shared_.alone_waiting_;
  shared_.busy_ = true;
}

SharedDecoder::Alone::~Alone() {
  const std::scoped_lock lock(shared_.mutex_);
  shared_.busy_ = false;
  shared_.turn_of_texts_ = true;
  shared_.changed_.notify_all();
}

}  // namespace qeval::eval
