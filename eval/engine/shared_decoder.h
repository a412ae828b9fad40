#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "model/decoder.h"

namespace qeval::eval {

/// One decoder for many texts under way, each continued by a thread of its own: what the threads ask for is
/// computed together, in the order in which they ask. Whoever comes when nothing is computed does it for all
/// that wait, and others join between two passes. No bit of a text depends on what it is computed with. The
/// decoder must outlive it, and is used by nobody else. Thread-safe.
class SharedDecoder {
 public:
  /// At most about `batch_tokens` tokens are computed at once, and about `kv_bytes` bytes of keys and values
  /// are held (at least those of one text).
  SharedDecoder(model::Decoder& decoder, int64_t batch_tokens, int64_t kv_bytes);

  /// A text under way. Not thread-safe.
  class Text {
   public:
    /// Room for `capacity` tokens (at least 1; Error beyond the model's context). Waits, in the order of
    /// arrival, until there is memory for them; `waiting` is called meanwhile, and what it throws ends the
    /// wait.
    Text(
        SharedDecoder& shared, int64_t capacity, const std::function<void()>& waiting = [] {});
    ~Text();
    Text(const Text&) = delete;
    Text& operator=(const Text&) = delete;

    /// As Generator::extend(): appends tokens and returns the logits of what comes next.
    std::vector<float> extend(std::span<const int32_t> tokens);
    int64_t length() const { return std::ssize(tokens_); }

   private:
    friend class SharedDecoder;
    SharedDecoder& shared_;
    int64_t bytes_;
    std::optional<model::KvSpan> span_;
    std::vector<int32_t> tokens_;
  };

  /// The decoder for one thread alone, for what is no text; in turns with the texts.
  class Alone {
   public:
    explicit Alone(SharedDecoder& shared);
    ~Alone();
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;

   private:
    SharedDecoder& shared_;
  };

 private:
  struct Wish {
    Text* text;
    std::span<const int32_t> tokens;
    std::vector<float> logits = {};
    std::exception_ptr error = {};
    bool done = false;
  };

  int64_t span_bytes(int64_t tokens) const;
  void admit(int64_t bytes, const std::function<void()>& waiting);
  void leave(int64_t bytes);
  /// The wishes of the next pass, the oldest first.
  std::vector<Wish*> take_wishes();
  void compute(std::span<Wish* const> wishes);
  void compute_batch(std::span<Wish* const> wishes);

  model::Decoder& decoder_;
  int64_t batch_tokens_, kv_bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Wish*> wishes_;
  bool busy_ = false;  ///< somebody has the decoder
  int64_t alone_waiting_ = 0;
  bool turn_of_texts_ = false;  ///< after somebody had the decoder alone
  int64_t texts_ = 0;           ///< under way
  int64_t held_bytes_ = 0;
  uint64_t next_ticket_ = 0, served_ticket_ = 0;  ///< of texts that wait for memory
};

}  // namespace qeval::eval
