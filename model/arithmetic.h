#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "model/graph.h"
#include "model/weights.h"

namespace qeval::model {

/// Activations [rows, cols], a row per token, in whatever element type the arithmetic computes with. The
/// decoder moves them between operations and never looks inside.
struct Tensor {
  int64_t rows = 0, cols = 0;
  AlignedBuffer storage;
  /// Rows that stand at position 0, ascending: an arithmetic may have grids of their own for them. Whoever
  /// runs the operations sets it; they look at that of what they read.
  std::vector<int64_t> first_rows{};

  bool is_first(int64_t r) const { return std::ranges::binary_search(first_rows, r); }
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
  int64_t skip = 0;  ///< of them, tokens at the beginning that no query of the tile sees: a multiple of 64
};

/// One unit of attention: a few consecutive queries against one key/value head.
/// Rows of the tile: (query i, head g of the group) at row i · group + g, group = heads / kv_heads. Columns
/// are the keys of the path from first_key on.
struct AttentionTile {
  int64_t layer = 0;
  const AttentionOp* op = nullptr;
  int64_t kv_head = 0;
  int64_t first_row = 0;  ///< row of the first query in q and in the output
  int64_t query_count = 0;
  int64_t first_position = 0;  ///< of the first query
  int64_t first_key = 0;       ///< position of the first key of the path
  int64_t key_count = 0;       ///< keys of the path, those after a query's own position included
  std::span<const KvPiece> path;
  AlignedBuffer& scores;  ///< scratch of the calling thread, shared by the three steps
  AlignedBuffer& scratch;

  /// Columns that query i sees: [begin(i), end(i)); the window hides those before, the mask those after.
  int64_t begin(int64_t i) const {
    return op->window == 0 ? 0 : std::max<int64_t>(0, first_position + i + 1 - op->window - first_key);
  }
  int64_t end(int64_t i) const { return first_position + i + 1 - first_key; }
  /// Columns that any query sees end here.
  int64_t last_end() const { return end(query_count - 1); }
};

/// Where the rows of a batch stand.
struct RowPositions {
  std::span<const int32_t> positions;
  /// Tokens of the row's whole sequence, where a rotary embedding depends on it; else empty.
  std::span<const int32_t> lengths{};
};

/// Which experts the rows of a batch are given to.
struct Routing {
  int64_t rows = 0, used = 0;
  std::vector<int32_t> experts;  ///< [rows, used], ascending in each row
  std::vector<float> weights;    ///< [rows, used] …
  std::vector<int32_t> codes;    ///< … or what an arithmetic of integers has instead
  // From them, by sort():
  std::vector<int64_t> first;   ///< [experts + 1]: where each expert's rows begin among the dispatched
  std::vector<int64_t> source;  ///< [rows · used]: the row behind each dispatched one
  std::vector<int64_t> place;   ///< [rows, used]: and the way back

  void sort(int64_t expert_count);
};

/// A segment of a batch to a recurrent operation: its rows, the state before them (null: zeros) and where
/// that behind them goes, which may be the same place. Segments come after those that they continue.
struct StateSegment {
  int64_t first_row = 0, count = 0;
  const std::byte* before = nullptr;
  std::byte* after = nullptr;
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

  /// "float", "fake" or "integer", as on the command line, or "float-bf16" and "float-bf16-amx"
  /// (--precision bf16).
  virtual std::string name() const = 0;
  /// Whether the elements of its tensors are float32, so that they can be looked at; else they are codes.
  virtual bool has_float_tensors() const { return false; }

  /// residual[i] ← the (scaled) embedding of tokens[i], with what is learned of its position where the model
  /// has that; residual becomes [tokens, hidden_size].
  virtual void embed(std::span<const int32_t> tokens, const RowPositions& rows, Tensor& residual) const = 0;
  /// out ← norm of each row of in, which may be out.
  virtual void norm(int64_t layer, const NormOp& op, const Tensor& in, Tensor& out) const = 0;
  /// out[i] ← in · Wᵢᵀ + bᵢ for several linear maps of one input.
  struct Target {
    const LinearOp* op;
    Tensor* out;
  };
  virtual void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const = 0;
  /// Rotary embedding in place on every head of the tensor.
  virtual void rotate(int64_t layer, const RotateOp& op, const RowPositions& rows, Tensor& heads) const = 0;
  /// k and v ← the parts of latent attention.
  virtual void split_latent(int64_t layer, const SplitLatentOp& op, const Tensor& latent, const Tensor& heads,
                            Tensor& k, Tensor& v) const = 0;

  // What not every arithmetic has: the constructors of the others refuse models with such operations, and
  // these throw.

  /// routing ← RouteOp, sorted.
  virtual void route(int64_t layer, const RouteOp& op, const Tensor& logits, Routing& routing) const;
  /// out ← rows of `in` by expert.
  virtual void dispatch(int64_t layer, const DispatchOp& op, const Tensor& in, const Routing& routing,
                        Tensor& out) const;
  /// linear() of experts: every one its own rows.
  virtual void expert_linear(int64_t layer, const Tensor& in, const Routing& routing,
                             std::span<const Target> targets) const;
  /// `shared` and `shared_gate` are undefined where the operation has none.
  struct ExpertResults {
    const Tensor &experts, &shared, &shared_gate;
  };
  virtual void mix_experts(int64_t layer, const MixExpertsOp& op, const ExpertResults& results,
                           const Routing& routing, Tensor& out) const;
  virtual void gate(int64_t layer, const GateOp& op, const Tensor& gate, Tensor& value) const;
  virtual void scale(int64_t layer, const ScaleOp& op, const Tensor& in, Tensor& out) const;
  virtual void clamp(int64_t layer, const ClampOp& op, Tensor& value) const;
  virtual void convolve(int64_t layer, const ConvolveOp& op, std::span<const StateSegment> segments,
                        Tensor& value) const;
  /// What recurrent mixers read.
  struct MixerInputs {
    const Tensor &q, &k, &v, &a, &b;
  };
  virtual void delta_rule(int64_t layer, const DeltaRuleOp& op, const MixerInputs& in,
                          std::span<const StateSegment> segments, Tensor& out) const;
  virtual void state_space(int64_t layer, const StateSpaceOp& op, const MixerInputs& in,
                           std::span<const StateSegment> segments, Tensor& out) const;
  /// Where a block's state begins in its KvBlock, behind keys and values for `tokens` tokens.
  virtual int64_t state_offset(int64_t layer, int64_t tokens) const;
  /// The residual streams: `active` is the residual stream, `others` are beside it.
  virtual void altup(int64_t layer, const AltupOp& op, const Tensor& predicted, const Tensor& update,
                     Tensor& active, Tensor& others) const;
  /// out ← the inputs of all layers, [tokens, layers · size].
  virtual void embed_layers(std::span<const int32_t> tokens, const Tensor& embedded, Tensor& out) const;

  /// Blocks of the model.
  virtual int64_t layers() const = 0;
  /// Whether a later layer reads the keys and values of this one.
  virtual bool lends_kv(int64_t) const { return false; }
  /// Bytes of a KvBlock for `tokens` tokens: all key/value heads of this layer.
  virtual int64_t kv_bytes(int64_t layer, int64_t tokens) const = 0;
  /// Stores rows [first_row, first_row + count) of k and v as tokens [at, at + count) of the block.
  virtual void store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                        const KvBlock& block, int64_t at) const = 0;
  /// Whether attention must be given all keys before a query, those outside its window, too.
  virtual bool wants_all_keys() const { return false; }
  /// tile.scores ← q · kᵀ for the tile's rows.
  virtual void scores(const AttentionTile& tile, const Tensor& q) const = 0;
  /// tile.scores ← softmax over the keys that are seen, with scaling and soft cap.
  virtual void softmax(const AttentionTile& tile) const = 0;
  /// The tile's rows and heads of out ([rows, heads · value_dim]) ← probabilities · v.
  virtual void mix(const AttentionTile& tile, Tensor& out) const = 0;
  /// Shapes the output of the attention before the tiles write into it.
  virtual void shape_mixed(const AttentionOp& op, int64_t rows, Tensor& out) const = 0;

  /// residual ← residual + factor · update; `residual` is what the operation adds to.
  virtual void add(int64_t layer, const AddOp& op, const Tensor& update, Tensor& residual) const = 0;
  /// gate ← activation(gate).
  virtual void activate(int64_t layer, const ActivateOp& op, Tensor& gate) const = 0;
  /// gate ← gate · up, the operation's two values.
  virtual void multiply(int64_t layer, const MultiplyOp& op, const Tensor& up, Tensor& gate) const = 0;
  /// value ← value · H / √block.
  virtual void hadamard(int64_t layer, const HadamardOp& op, Tensor& value) const = 0;

  /// out ← the given rows of a tensor, in the order given.
  virtual void gather(const Tensor& tensor, std::span<const int64_t> rows, Tensor& out) const = 0;
  /// out ← what the head reads, of rows of the residual stream: the final norm, where there is one.
  virtual void finish(const Tensor& residual, Tensor& out) const = 0;
  /// logits [normed.rows, count] ← head rows [first, first + count) for every row of what finish() made.
  /// Called from many threads at once for different vocabulary tiles.
  virtual void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const = 0;
};

/// The arithmetic of the float model, for positions below `max_positions`. `model` must outlive it. Where the
/// model's configuration says l2norm_as_rmsnorm, the blocks' norms have no eps.
std::unique_ptr<Arithmetic> make_float_arithmetic(const Model& model, int64_t max_positions);

}  // namespace qeval::model
