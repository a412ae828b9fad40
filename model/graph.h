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
  attention_gate,  ///< of the attention's result, behind a sigmoid (Qwen 3.5)
  v_norm,
  router_norm,  ///< in front of the router, where it has one of its own (Gemma 4)
  router,
  expert_gate,  ///< of every routed expert
  expert_activation,
  expert_up,
  expert_down,
  expert_mix,   ///< the chosen experts' weighted sum
  shared_gate,  ///< of the expert that every token is given to
  shared_activation,
  shared_up,
  shared_down,
  shared_expert_gate,  ///< its own router, behind a sigmoid
  pre_experts_norm,    ///< Gemma 4: in front of the routed experts …
  post_dense_norm,     ///< … of the dense MLP's result …
  post_experts_norm,   ///< … and of the experts'
  mixer_q,             ///< recurrent mixers: what reads the state (C of Mamba-2 and of LFM2) …
  mixer_k,             ///< … where a token is written to it (B) …
  mixer_v,             ///< … and what is written (x)
  mixer_z,             ///< gate of the mixer's result
  mixer_b,             ///< how much is written
  mixer_a,             ///< how much is forgotten
  mixer_q_conv,
  mixer_k_conv,
  mixer_v_conv,
  mixer_state,  ///< decay, step and skip of every head
  mixer_norm,
  mixer_o,
  layer_scalar,      ///< a number that the residual stream is multiplied by (Gemma 4)
  layer_input_gate,  ///< inputs of every layer (Gemma 3n, 4): their gate …
  layer_input_activation,
  layer_input_projection,
  layer_input_norm,
  laurel_left,  ///< low-rank path beside the attention (Gemma 3n)
  laurel_right,
  laurel_norm,
  altup,         ///< several residual streams (Gemma 3n)
  output_scale,  ///< of the stream that inputs of layers are gated by
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
  mlp_update,  ///< where the MLP's update comes to be before the attention's is added
  attention_gate,
  router,      ///< the router's logits, [rows, experts]
  routing,     ///< which experts a token is given to; not a tensor (Routing)
  experts_in,  ///< what the routed experts read, where it is not what the MLP reads
  dispatched,  ///< rows of the batch by expert, one for every chosen expert of a token
  expert_out,  ///< the experts' results, in the same order
  shared,      ///< the shared expert's result
  shared_gate,
  mixer_in,
  mixer_q,
  mixer_k,
  mixer_v,
  mixer_z,
  mixer_b,
  mixer_a,
  mixer_out,
  layer_inputs,  ///< [rows, layers · size]: made with the embedding, for all layers
  laurel,
  streams,   ///< all residual streams but the active one, side by side
  predicted  ///< the active one as it was predicted
};
inline constexpr size_t kValues = static_cast<size_t>(Value::predicted) + 1;

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
  bool weighted = true;  ///< else its weights are 1

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
  int64_t experts = 0;  ///< where not 0: as many weights, each for the rows that are its expert's
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
  float softcap = 0;     ///< 0: none
  bool sinks = false;    ///< a number per head joins the softmax, unscaled and without a value
  int64_t kv_from = 0;   ///< where not 0: keys and values are those of the layer this many earlier
  bool kv_lent = false;  ///< a later layer reads the keys and values of this one

  int64_t group() const { return heads / kv_heads; }
};

/// gate ← activation(gate).
struct ActivateOp {
  Activation kind = Activation::silu;
  int64_t width = 0;
  Module module = Module::activation;
  float limit = 0;  ///< where not 0: SiLU is min(x, limit) · sigmoid(slope · min(x, limit))
  float slope = 1;
  /// Where not 0: x becomes max(0, x − mean − sparsity · deviation) over the row before the function.
  float sparsity = 0;
};

/// value ← value · by, `by`'s channels from `first` on.
struct MultiplyOp {
  int64_t width = 0;
  Module module = Module::down;  ///< what reads the product
  Value value = Value::gate, by = Value::up;
  int64_t first = 0;
  float limit = 0;   ///< where not 0: `by` is clamped to ± limit …
  float offset = 0;  ///< … and this added
};

/// value ← value · H / √block in place, over blocks of `block` channels (hadamard.h): a rotation whose
/// inverse is in the weights behind it.
struct HadamardOp {
  Value value = Value::gate;
  int64_t width = 0, block = 0;
  Operand operand = Operand::none;
};

/// to ← to + factor · in; `module` made `in`.
struct AddOp {
  Module module = Module::o;
  Value in = Value::update;
  float factor = 1;
  Value to = Value::residual;
};

/// routing ← the `used` experts of each row by the router's logits, and what their results are multiplied by.
/// Of equals the lower index.
struct RouteOp {
  enum class Scores : uint8_t {
    softmax,
    sigmoid,
    sparse_mixer  ///< Phi-MoE: two experts, each weighted by a softmax over those near the best
  } scores = Scores::softmax;
  int64_t experts = 0, used = 0;
  bool normalize = false;               ///< the chosen scores are divided by their sum …
  double least_sum = 0;                 ///< … or by this, if that is less
  double added_sum = 0;                 ///< … with this added
  float factor = 1;                     ///< of the weights in the end
  bool correction = false;              ///< experts are chosen by score + a bias of their own
  bool expert_scale = false;            ///< weights are multiplied by a number of each expert
  int64_t groups = 1, used_groups = 1;  ///< only experts of the best groups are chosen
  float jitter = 0;                     ///< sparse_mixer: how near the best
};

/// dispatched ← rows of `in` by expert.
struct DispatchOp {
  Value in = Value::normed;
};

/// out ← Σ weight · expert_out over a row's experts, in the order of their indices, plus, where there is one,
/// the shared expert's result (times the sigmoid of its gate).
struct MixExpertsOp {
  Module module = Module::expert_mix;
  Value out = Value::update;
  int64_t width = 0;
  bool shared = false, shared_gate = false;
};

/// value ← value · sigmoid(gate), or · gate · sigmoid(gate).
struct GateOp {
  Value value = Value::mixed, gate = Value::attention_gate;
  bool silu = false;
};

/// out ← factor · in, and times the numbers of a module where `stored`: [width], or one.
struct ScaleOp {
  Value in = Value::residual, out = Value::residual;
  float factor = 1;
  bool stored = false;
  Module module = Module::layer_scalar;
  int64_t numbers = 1;
};

/// value ← min(max(value, −limit), limit).
struct ClampOp {
  Value value = Value::q;
  float limit = 0;
};

/// value ← causal convolution of each channel with its own taps: y_t = Σ_j w_j · x_{t−K+1+j} + b. Its state
/// is the last K − 1 rows.
struct ConvolveOp {
  Module module = Module::mixer_v_conv;
  Value value = Value::mixer_v;
  int64_t width = 0, taps = 0;
  bool bias = false, silu = false;
  int64_t state = 0;  ///< where its state begins in that of the block, in numbers

  int64_t state_size() const { return (taps - 1) * width; }
};

/// The gated delta rule over mixer_q, k, v with mixer_a and mixer_b: per value head a state S [key, value],
/// S ← S · exp(−e^A · softplus(a + dt)); S ← S + k ⊗ sigmoid(b)(v − kᵀS); mixer_out = qᵀS, q and k
/// normalized.
struct DeltaRuleOp {
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
  int64_t state = 0;
  bool tiled = false;  ///< value head j uses key head j mod key_heads, else j · key_heads / value_heads

  int64_t key_head(int64_t value_head) const {
    return tiled ? value_head % key_heads : value_head / (value_heads / key_heads);
  }
  int64_t state_size() const { return value_heads * key_dim * value_dim; }
};

/// Mamba-2: per head, with dt = clamp(softplus(a + dt)), S ← S · exp(−e^A · dt) + (dt · v) ⊗ k;
/// mixer_out = S q + D v. Heads of a group share q and k.
struct StateSpaceOp {
  int64_t heads = 0, groups = 0, head_dim = 0, state_dim = 0;
  float least_step = 0, most_step = 0;
  int64_t state = 0;

  int64_t state_size() const { return heads * head_dim * state_dim; }
};

/// Gemma 3n's residual streams: `split` makes the others of the embedding, `predict` and `correct` stand at a
/// block's ends, `add` adds the layer's input to the others, `merge` is their mean.
struct AltupOp {
  enum class Step : uint8_t { split, predict, correct, add, merge } step = Step::predict;
  int64_t streams = 0, active = 0, width = 0;
  double eps = 0;  ///< of the router's norm
};

/// One visitor of a variant from lambdas.
template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

using Operation = std::variant<NormOp, LinearOp, RotateOp, SplitLatentOp, AttentionOp, ActivateOp, MultiplyOp,
                               HadamardOp, RouteOp, DispatchOp, MixExpertsOp, GateOp, ScaleOp, ClampOp,
                               ConvolveOp, DeltaRuleOp, StateSpaceOp, AltupOp, AddOp>;

/// The operations of one block, in order.
struct BlockGraph {
  std::vector<Operation> operations;
  int64_t state_size = 0;  ///< numbers that its recurrent operations hand from token to token

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
  /// Precondition: it has one.
  const AttentionOp& attention() const { return *find<AttentionOp>(); }
  /// The rotation of a value; nullptr where there is none.
  const HadamardOp* hadamard(Value value) const {
    for (const Operation& operation : operations) {
      const auto* op = std::get_if<HadamardOp>(&operation);
      if (op != nullptr && op->value == value) return op;
    }
    return nullptr;
  }
  /// Whether what `module` reads is a product that was made for it, or a rotation of what was: then it is
  /// rounded where it is made.
  bool reads_product(Module module) const {
    for (const Operation& operation : operations) {
      const auto* op = std::get_if<MultiplyOp>(&operation);
      if (op != nullptr && op->module == module) return true;
    }
    return module == Module::down && hadamard(Value::gate) != nullptr;
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

/// Whether an operation belongs to experts, recurrent mixers or what else stands beyond a dense block: what
/// only knows those blocks refuses it.
bool is_beyond_dense(const Operation& operation);

/// A name for messages: "norm", "linear", "rotary embedding", …
std::string_view operation_name(const Operation& operation);

}  // namespace qeval::model
