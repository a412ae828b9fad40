#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/answers.h"
#include "model/arithmetic.h"

namespace qeval::model {

/// Keys and values of one run of tokens, and the recurrent states behind its last one. With `layers` = the
/// model's, they last: later batches can attend to them. With `layers` = 1 the one block serves every layer
/// in turn, and they are gone after the batch.
class KvSpan {
 public:
  KvSpan(const Arithmetic& arithmetic, int64_t capacity, int64_t layers);

  KvBlock block(int64_t layer) { return {blocks_[index(layer)].data(), capacity_}; }
  KvPiece piece(int64_t layer, int64_t length) const {
    return {blocks_[index(layer)].data(), capacity_, length};
  }
  int64_t capacity() const { return capacity_; }
  /// Gives back what a layer keeps, where every layer has a block: nothing attends to it there any more.
  void release(int64_t layer) {
    if (lasting_) blocks_[index(layer)] = AlignedBuffer();
  }
  /// Bytes that are kept now.
  int64_t bytes() const {
    int64_t bytes = 0;
    for (const AlignedBuffer& block : blocks_) bytes += static_cast<int64_t>(block.size());
    return bytes;
  }

 private:
  size_t index(int64_t layer) const { return slots_[static_cast<size_t>(layer)]; }

  int64_t capacity_;
  bool lasting_;
  std::vector<size_t> slots_;  ///< [layers]; one for all, but for layers that others read the keys of
  std::vector<AlignedBuffer> blocks_;
};

/// A run of consecutive tokens of a batch: rows [first_row, first_row + length), at positions first_position
/// onwards.
struct Segment {
  int64_t first_row = 0;
  int64_t length = 0;
  int64_t first_position = 0;
  KvSpan* kv = nullptr;  ///< receives the keys and values of this segment and no other of the batch …
  int64_t kv_at = 0;     ///< … from this token of the span on; earlier ones are attended to as well
  /// What comes before `kv`, from position 0: spans filled by earlier batches or by earlier segments of this
  /// one, each with the number of its tokens that are attended to. Lengths plus kv_at add up to
  /// first_position.
  struct Ancestor {
    const KvSpan* kv;
    int64_t length;
  };
  std::vector<Ancestor> ancestors{};
};

/// Tokens packed without padding; segments cover the rows in order.
struct Batch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  /// Tokens of each row's whole sequence: needed where ModelConfig::length_class depends on it, else empty.
  std::vector<int32_t> lengths{};
  std::vector<Segment> segments;
  /// Rows that will be asked for, ascending; all where absent. The last block computes nothing but keys and
  /// values for the others.
  std::optional<std::vector<int64_t>> read{};
};

/// The one forward pass: the operations of the model's graph in their order, computed by whatever arithmetic
/// it is given. Not thread-safe (it owns the activations); parallel inside.
class Decoder {
 public:
  /// Both must outlive the decoder.
  Decoder(const Model& model, const Arithmetic& arithmetic);

  /// Runs all blocks; the residual stream of the rows that are read stays in the decoder until the next call.
  void forward(const Batch& batch);

  /// forward() in steps, for whoever looks at a block with many batches before it goes on to the next:
  /// `residual` ← the stream in front of the first block, and then behind one block after another. Rows that
  /// are read (Batch::read) make no difference.
  void embed(const Batch& batch, Tensor& residual) const;
  void advance(int64_t layer, const Batch& batch, Tensor& residual);

  /// Log-probabilities at rows of the batch last run; queries in ascending order of rows. A vocabulary tile
  /// at a time: no rows × vocabulary matrix is ever held.
  std::vector<TokenAnswer> answer(std::span<const TokenQuery> queries);

  /// The same, and `distributions[i]` ← what `wanted[i]` asks; every row of `wanted` must be one of
  /// `queries`'. Holds the logits of a few hundred rows at a time (64 MiB). The answers are those of answer()
  /// without it.
  std::vector<TokenAnswer> answer(std::span<const TokenQuery> queries,
                                  std::span<const DistributionQuery> wanted,
                                  std::vector<Distribution>& distributions);

  /// All logits [rows.size(), vocab_size] of the given rows of the batch last run.
  std::vector<float> logits(std::span<const int64_t> rows);

  const Model& model() const { return model_; }
  const Arithmetic& arithmetic() const { return arithmetic_; }

 private:
  Tensor& at(Value value) { return values_[static_cast<size_t>(value)]; }
  /// Block `layer`; of the last one, only what the rows that are read need.
  void run_block(int64_t layer, const Batch& batch);
  /// Of the rows that `rows` names only, where it is given.
  void attend(int64_t layer, const AttentionOp& op, const Batch& batch, const std::vector<int64_t>* rows);
  /// Convolutions and recurrences.
  void recur(int64_t layer, const Operation& operation, const Batch& batch);
  std::vector<StateSegment> state_segments(int64_t layer, const Batch& batch) const;
  /// The operations between rows of one input: those in a row on the same tensors are done together. Returns
  /// the next operation.
  size_t run_linears(int64_t layer, const std::vector<Operation>& operations, size_t i);
  /// Keeps the rows that are read of what operations [next, …) of the block need.
  void keep_read_rows(const BlockGraph& block, size_t next);
  /// The given rows of a tensor.
  Tensor gathered(std::span<const int64_t> rows, const Tensor& tensor) const;
  /// What the head reads, of rows of the batch.
  const Tensor& finish(std::span<const int64_t> rows);
  /// Rows of a batch as rows of the residual stream.
  std::vector<int64_t> kept_rows(std::span<const int64_t> rows) const;

  const Model& model_;
  const Arithmetic& arithmetic_;
  std::array<Tensor, kValues> values_;
  Routing routing_;
  std::optional<std::vector<int64_t>> read_;  // of the batch last run
};

}  // namespace qeval::model
