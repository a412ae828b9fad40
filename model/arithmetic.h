#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "model/weights.h"

namespace qeval::model {

/// Activations [rows, cols], a row per token, in whatever element type the arithmetic computes with. The
/// decoder moves them between operations and never looks inside.
struct Tensor {
  int64_t rows = 0, cols = 0;
  AlignedBuffer storage;

  /// Shapes the tensor for `element_size` bytes per element; the content is undefined afterwards.
  void resize(int64_t row_count, int64_t col_count, size_t element_size) {
    rows = row_count;
    cols = col_count;
    storage.resize(static_cast<size_t>(row_count * col_count) * element_size);
  }
  template <typename T>
  T* row(int64_t r) {
    return storage.as<T>() + r * cols;
  }
  template <typename T>
  const T* row(int64_t r) const {
    return storage.as<T>() + r * cols;
  }
};

/// The linear maps of a block, by their unified names.
enum class Projection : uint8_t { q, k, v, o, gate, up, down };

enum class NormPoint : uint8_t { input, post_attention, final };

/// The weights behind a projection of a block.
const LinearWeights& projection_weights(const LayerWeights& block, Projection projection);

/// Keys and values of one run of consecutive tokens, for one layer, laid out as the arithmetic likes. The
/// owner sizes it through Arithmetic::kv_bytes.
struct KvBlock {
  std::byte* data = nullptr;
  int64_t capacity = 0;  ///< tokens there is room for
};

/// A stretch of the keys that a query attends to: the first `length` tokens of a block. The stretches of a
/// path follow one another from position 0.
struct KvPiece {
  const std::byte* data = nullptr;
  int64_t capacity = 0;
  int64_t length = 0;
};

/// One unit of attention: a few consecutive queries against one key/value head.
/// Rows of the tile: (query i, head g of the group) at row i · group + g, group = num_heads / num_kv_heads.
struct AttentionTile {
  int64_t layer = 0;
  int64_t kv_head = 0;
  int64_t first_row = 0;  ///< row of the first query in q and in the output
  int64_t query_count = 0;
  int64_t first_position = 0;  ///< of the first query; query i sees keys 0 … first_position + i
  int64_t key_count = 0;       ///< all keys of the path, those after a query's own position included
  std::span<const KvPiece> path;
  AlignedBuffer& scores;  ///< scratch of the calling thread, shared by the three steps
  AlignedBuffer& scratch;
};

/// How numbers are represented and what each operation of the block diagram computes. One of the project's
/// three inheritance seams: float, fake-quantized and integer-only arithmetic implement it, the decoder
/// drives it.
///
/// Rules for implementations: every operation is a function of its row (and, in attention, of the keys at the
/// positions before it): the bits of a result must not depend on the other rows of the batch, on how a path
/// is cut into pieces, or on the number of threads. Operations parallelise inside, except the three attention
/// steps, which the decoder calls from many threads at once on different tiles. const throughout: no state
/// between calls.
class Arithmetic {
 public:
  virtual ~Arithmetic() = default;

  /// "float", "fake" or "integer", as on the command line, or "float-bf16" (--precision bf16).
  virtual std::string name() const = 0;
  /// Whether the elements of its tensors are float32, so that they can be looked at; else they are codes.
  virtual bool has_float_tensors() const { return false; }

  /// residual[i] ← the (scaled) embedding of tokens[i]; residual becomes [tokens, hidden_size].
  virtual void embed(std::span<const int32_t> tokens, Tensor& residual) const = 0;
  /// out ← norm of each row of the residual stream. `layer` is ignored for the final norm.
  virtual void norm(int64_t layer, NormPoint point, const Tensor& residual, Tensor& out) const = 0;
  /// out[i] ← in · Wᵢᵀ + bᵢ for several projections of one input.
  struct Target {
    Projection projection;
    Tensor* out;
  };
  virtual void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const = 0;
  /// Rotary embedding in place on every head of q or k ([rows, heads · head_dim]); row i stands at
  /// positions[i].
  virtual void rotate(int64_t layer, Projection which, std::span<const int32_t> positions,
                      Tensor& heads) const = 0;

  /// Bytes of a KvBlock for `tokens` tokens: all key/value heads of one layer.
  virtual int64_t kv_bytes(int64_t tokens) const = 0;
  /// Stores rows [first_row, first_row + count) of k and v as tokens [at, at + count) of the block.
  virtual void store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                        const KvBlock& block, int64_t at) const = 0;
  /// tile.scores ← q · kᵀ for the tile's rows.
  virtual void scores(const AttentionTile& tile, const Tensor& q) const = 0;
  /// tile.scores ← softmax over the visible keys, with the 1/√head_dim scaling.
  virtual void softmax(const AttentionTile& tile) const = 0;
  /// The tile's rows and heads of out ([rows, num_heads · head_dim]) ← probabilities · v.
  virtual void mix(const AttentionTile& tile, Tensor& out) const = 0;
  /// Shapes the output of the attention before the tiles write into it.
  virtual void shape_mixed(int64_t rows, Tensor& out) const = 0;

  /// residual ← residual + update, the output of projection `from` (o or down).
  virtual void add(int64_t layer, Projection from, const Tensor& update, Tensor& residual) const = 0;
  /// gate ← activation(gate).
  virtual void activate(int64_t layer, Tensor& gate) const = 0;
  /// gate ← gate · up.
  virtual void multiply(int64_t layer, const Tensor& up, Tensor& gate) const = 0;

  /// out ← the given rows of the residual stream, in the order given.
  virtual void gather(const Tensor& residual, std::span<const int64_t> rows, Tensor& out) const = 0;
  /// logits [normed.rows, count] ← head rows [first, first + count) for every row of the final norm's output.
  /// Called from many threads at once for different vocabulary tiles.
  virtual void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const = 0;
};

/// The arithmetic of the float model, for positions below `max_positions`. `model` must outlive it. Where the
/// model's configuration says l2norm_as_rmsnorm, the blocks' norms have no eps.
std::unique_ptr<Arithmetic> make_float_arithmetic(const Model& model, int64_t max_positions);

}  // namespace qeval::model
