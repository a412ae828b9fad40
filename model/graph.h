#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qeval::model {

struct ModelConfig;

enum class NormKind : uint8_t { rms, layer };
enum class Activation : uint8_t { silu, gelu_erf, gelu_tanh, relu, relu2, xielu };

/// The modules that own weights or quantization points, by their unified names: those of a block in the order
/// they run, then those outside the blocks. A block has some of them. What a norm is there for (in front of
/// the attention or the MLP, or of an update before it is added) says its operation in the graph: families
/// call the same thing by different names.
enum class Module : uint8_t {
  input_norm,      ///< in front of the attention; in parallel blocks of one norm, of the MLP too
  q_latent,        ///< latent attention: down-projection of the queries …
  q_latent_norm,   ///< … and its norm
  kv_latent,       ///< down-projection of keys and values, with the one rotated key of all heads
  kv_latent_norm,  ///< of its first part
  kv,              ///< latent keys and values up to heads
  q,
  k,
  v,
  q_norm,
  k_norm,
  qk_product,  ///< scores q·kᵀ
  softcap,     ///< c·tanh(score·scale/c)
  pv_product,  ///< mix p·v
  o,
  post_self_attn_norm,
  post_attention_norm,
  pre_feedforward_norm,
  gate,
  activation,
  up,
  down,
  post_feedforward_norm,
  post_mlp_norm,
  final_norm,
  head,
  embedding_in,   ///< from an embedding that is narrower than the model
  embedding_out,  ///< and back, in front of the head
};
inline constexpr int64_t kBlockModules = static_cast<int64_t>(Module::final_norm);
inline constexpr int64_t kModelModules = 4;

/// Name of a module behind "model.layers.N." (or whole, outside the blocks): "self_attn.q_proj",
/// "model.norm".
std::string_view module_name(Module module);

/// Whether a module stands outside the blocks.
constexpr bool is_after_blocks(Module module) {
  return static_cast<int64_t>(module) >= kBlockModules;
}

/// The tensors that the operations of a block hand to one another, [rows, …] each.
enum class Value : uint8_t {
  residual,
  normed,
  q_latent,
  kv_latent,
  kv_normed,
  kv,
  q,
  k,
  v,
  mixed,
  gate,  ///< between the MLP's first linears and its last; without a gate, of the one there is
  up,
  update,
  mlp_update  ///< where the MLP's update comes to be before the attention's is added
};
inline constexpr size_t kValues = 14;

/// What the attention reads a tensor as, where an operation is the last that changes it.
enum class Operand : uint8_t { none, query, key, value };

/// out ← norm of in, over whole rows or over heads of `group` channels. RMSNorm: x · w / √(mean x² + eps);
/// LayerNorm subtracts the mean first.
struct NormOp {
  Module module = Module::input_norm;
  Value in = Value::residual, out = Value::normed;
  NormKind kind = NormKind::rms;
  double eps = 1e-5;
  int64_t width = 0;         ///< channels of a row
  int64_t group = 0;         ///< channels normalized together: a divisor of width
  bool own_weights = false;  ///< every group has weights of its own, [width]; else they share [group]
  bool bias = false;
  Operand operand = Operand::none;

  /// Of an update before it is added to the residual stream.
  bool is_of_update() const { return out == Value::update || out == Value::mlp_update; }
  int64_t weights() const { return own_weights ? width : group; }
};

/// out ← in · Wᵀ + b.
struct LinearOp {
  Module module = Module::q;
  Value in = Value::normed, out = Value::q;
  int64_t rows = 0, cols = 0;  ///< of W: output and input features
  bool bias = false;
  Operand operand = Operand::none;
};

/// Rotary embedding in place: of every head, channels [first, first + dim of the rotary), by pairs (i, i +
/// dim/2).
struct RotateOp {
  Value value = Value::q;
  int64_t width = 0, head_dim = 0, first = 0;
  bool local = false;  ///< by ModelConfig::local_rotary
  Operand operand = Operand::none;
  /// Rows are multiplied by 1 + beta · ln(1 + ⌊position / original⌋) behind the rotation (Ministral 3).
  double position_beta = 0, position_original = 1;
};

/// From latent attention's parts to keys and values: kv [rows, heads · (nope + value_dim)] and the last
/// `rope` channels of kv_latent, which all heads share, to k [rows, heads · (nope + rope)] and v.
struct SplitLatentOp {
  int64_t heads = 0, nope = 0, rope = 0, value_dim = 0;
};

/// mixed ← softmax(mask(scale · q·kᵀ)) · v. With a soft cap c, scores are c·tanh(scale · q·kᵀ / c).
struct AttentionOp {
  int64_t heads = 0, kv_heads = 0;
  int64_t head_dim = 0, value_dim = 0;  ///< of q and k; of v and the result
  int64_t window = 0;                   ///< a query sees this many keys, its own included; 0: all before it
  float scale = 1;
  float softcap = 0;  ///< 0: none

  int64_t group() const { return heads / kv_heads; }
};

/// gate ← activation(gate).
struct ActivateOp {
  Activation kind = Activation::silu;
  int64_t width = 0;
};

/// gate ← gate · up.
struct MultiplyOp {
  int64_t width = 0;
};

/// value ← value · H / √block in place, over blocks of `block` channels (hadamard.h): a rotation whose inverse
/// is in the weights behind it.
struct HadamardOp {
  Value value = Value::gate;
  int64_t width = 0, block = 0;
  Operand operand = Operand::none;
};

/// residual ← residual + factor · in; `module` made `in`.
struct AddOp {
  Module module = Module::o;
  Value in = Value::update;
  float factor = 1;
};

using Operation =
    std::variant<NormOp, LinearOp, RotateOp, SplitLatentOp, AttentionOp, ActivateOp, MultiplyOp, HadamardOp,
                 AddOp>;

/// The operations of one block, in order.
struct BlockGraph {
  std::vector<Operation> operations;

  /// The operation of type `Op` that `module` names; nullptr where the block has none.
  template <typename Op>
  const Op* find(Module module) const {
    for (const Operation& operation : operations) {
      const Op* op = std::get_if<Op>(&operation);
      if (op != nullptr && op->module == module) return op;
    }
    return nullptr;
  }
  /// The only operation of type `Op`; nullptr where there is none.
  template <typename Op>
  const Op* find() const {
    for (const Operation& operation : operations) {
      if (const Op* op = std::get_if<Op>(&operation)) return op;
    }
    return nullptr;
  }
  const AttentionOp& attention() const { return *find<AttentionOp>(); }
  /// The rotation of a value; nullptr where there is none.
  const HadamardOp* hadamard(Value value) const {
    for (const Operation& operation : operations) {
      const auto* op = std::get_if<HadamardOp>(&operation);
      if (op != nullptr && op->value == value) return op;
    }
    return nullptr;
  }
};

/// What a model computes, as data: everything that needs the order of a block walks this.
struct Graph {
  std::vector<BlockGraph> blocks;
  std::optional<NormOp> final_norm;

  const BlockGraph& block(int64_t layer) const { return blocks[static_cast<size_t>(layer)]; }
};

/// The one place where the order of a block is written: the graph of a model with these settings.
Graph make_graph(const ModelConfig& config);

/// Tensors that an operation reads and the one that it writes (none for attention's keys and values, which it
/// stores first).
struct Accesses {
  std::vector<Value> reads;
  Value writes;
};
Accesses accesses(const Operation& operation);

/// Whether operations [first, …) of a block read `value` before they write it.
bool is_read_later(const BlockGraph& block, size_t first, Value value);

/// A producer whose output channels can be divided by any factors if the consumers' input columns are
/// multiplied by them: nothing but that stands between (SmoothQuant's and OmniQuant's transformations).
struct ScaleEdge {
  Module producer;
  std::vector<Module> consumers;
};
/// Those of a block: norm → what reads it, in the block's order; then v → o, where every head has keys and
/// values of its own, and up → down, where a gate is multiplied in between.
std::vector<ScaleEdge> scale_edges(const BlockGraph& block);

/// A name for messages: "norm", "linear", "rotary embedding", …
std::string_view operation_name(const Operation& operation);

}  // namespace qeval::model
