#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/parallel.h"
#include "model/graph.h"
#include "model/hadamard.h"
#include "quant/arithmetic/integer/fixed_point.h"

namespace qeval::quant {

// What integer-only arithmetic needs at run time, prepared once from the float weights and the quantization
// settings (prepare.h). By construction there is no floating-point member in any of these types.

/// Factors that are all fast() with one lift of what they multiply: multiplier and shift + lift − 32 of each,
/// side by side.
struct FastRescaleView {
  const int32_t* multiplier = nullptr;
  const int32_t* shift = nullptr;
  int32_t lift = 0;
};
struct FastRescale {
  std::vector<int32_t> multiplier, shift;
  int32_t lift = 0;

  bool usable() const { return !multiplier.empty(); }
  FastRescaleView view(int64_t first) const {
    return {multiplier.data() + first, shift.data() + first, lift};
  }
};

/// A function of one code, tabulated: result = values[code − lo]. Empty: the identity.
struct CodeTable {
  int32_t lo = 0;
  std::vector<int16_t> values;

  bool identity() const { return values.empty(); }
  int16_t operator()(int16_t code) const { return values[static_cast<size_t>(code - lo)]; }
};

/// Codes of the residual stream's numbers where an operation reads them on a grid that is not the stream's
/// own. What lies halfway between two codes goes to the even one, as in the simulation: a row of the
/// embedding, whose numbers have few bits and whose ends are the range's, often does.
struct StreamRead {
  Rescale factor;  ///< to 2^−kReadBits of a code
  CodeRange codes;
  bool operator==(const StreamRead&) const = default;
};

inline constexpr int32_t kReadBits = 16;

enum class WeightStorage : uint8_t { int4, int8, int16 };

/// Columns of a panel: outputs (or keys) whose codes lie side by side.
inline constexpr int64_t kPanel = 16;

/// How a panel's codes lie side by side.
/// pairs: [cols / 2, kPanel, 2]: products of 16-bit inputs.
/// quads: [entries, kPanel, 4]: products of inputs of 0 … 255, four of a row an entry, in their order.
/// grouped_quads: the same of code − zero point, for vectors that add the products of neighbouring inputs up
/// in 16 bits, over `group` entries, before they widen them: within a group, the positive and the negative
/// weights of each 16-bit lane add up to at most kLaneWeight, so that no sum saturates. What is too much for
/// its group is in the overflow, further entries for the same inputs.
enum class PanelLayout : uint8_t { pairs, quads, grouped_quads };
inline constexpr int32_t kLaneWeight = 128;  ///< 255 · 128 < 2^15
inline constexpr int64_t kQuadEntry = 4 * kPanel;

/// A linear map [rows, cols] in the layout of the products: panels of kPanel rows, with zeros where there is
/// no row or input. int4: two codes a byte, each stored plus 8; of every 32 consecutive codes the first 16
/// are the low halves of 16 bytes; those of grouped quads have their zero points, which are taken off as they
/// are unpacked.
struct IntegerMatrix {
  int64_t rows = 0, cols = 0;
  WeightStorage storage = WeightStorage::int8;
  PanelLayout layout = PanelLayout::pairs;
  AlignedBuffer panels;
  int64_t entries = 0;                   ///< of a panel of quads, whole groups
  int32_t group = 1;                     ///< of grouped quads: 1, 2 or 4
  std::vector<int64_t> overflow_first;   ///< [panels + 1], the first entry of each in what follows
  std::vector<int32_t> overflow_inputs;  ///< first input of each entry
  AlignedBuffer overflow;                ///< [entries, kPanel, 4]
  /// Accumulator of output j: (Σ x·w − zero_point[j]·Σ x) · 2^raise + constant[j], x and w the codes. The
  /// constant holds the bias and the input's zero point.
  /// All [rows rounded up to panels]; those that are not used are empty.
  int32_t raise = 0;  ///< fractional bits of the accumulators, for the bias: the sums themselves are whole
  std::vector<int64_t> constant;
  std::vector<int32_t> zero_points;    ///< of the weights
  std::vector<Rescale> factors;        ///< accumulator to output; one where `uniform`
  bool has_zero_points = false;        ///< whether sums of the inputs' codes are needed for them
  bool uniform = false;                ///< all factors are the same, and fast()
  FastRescale fast;                    ///< the factors again, where all of them are fast
  std::vector<int32_t> fast_constant;  ///< the constants modulo 2^32, by rows times 2^(fast.lift − raise)
  CodeTable input_table;               ///< where the input is rounded again on its way in
  std::optional<StreamRead> stream;    ///< of a map that reads the residual stream itself
  bool narrow_input = true;            ///< the input's codes are 0 … 255
  CodeRange output;
  CodeTable output_table;  ///< where the output is rounded again on its way out

  /// Weights in groups: of each `group_cols` inputs one behind the other, a map of their own (panels of
  /// pairs, zero points, and constants that hold the input's zero point; no factors), whose exact
  /// accumulators are added up times group_multipliers [groups, rows rounded up to panels]. The sum is this
  /// map's accumulator, whose constant is the bias. Empty, and no panels above, where all inputs of an output
  /// share a grid.
  std::vector<IntegerMatrix> groups;
  int64_t group_cols = 0;
  std::vector<int32_t> group_multipliers;

  /// Of the weights and all that goes with them, as held.
  int64_t byte_count() const;
  int64_t panel_count() const { return (rows + kPanel - 1) / kPanel; }
  int64_t panel_codes() const {
    return layout == PanelLayout::pairs ? (cols + 1) / 2 * 2 * kPanel : entries * kQuadEntry;
  }
  int64_t panel_bytes() const {
    return storage == WeightStorage::int4   ? panel_codes() / 2
           : storage == WeightStorage::int8 ? panel_codes()
                                            : panel_codes() * 2;
  }
};

/// The residual stream: d = (value / step) · 2^guard_bits in 32 bits, rounded to nearest, step that of the
/// 16-bit grid of the operation that reads it next. The norm sees the grid's codes; the guard bits keep the
/// roundings of some sixty additions from adding up. Without them the stream is the codes' 16 bits.
struct StreamFormat {
  int32_t guard_bits = 0;
  CodeRange codes;         ///< what a norm reads: clamp(round(d / 2^guard_bits) + zero_point)
  int32_t lo = 0, hi = 0;  ///< of d: the codes' without guard bits, else ±kStreamLimit
};
inline constexpr int32_t kStreamLimit = 1 << 30;
inline constexpr int32_t kStreamGuardBits = 12;

/// What a norm reads: the residual stream on its own step, or on another reader's, or codes.
enum class NormSource : uint8_t { stream, other_stream, codes };

/// A norm over groups of n channels (docs/specification.md#integer-only). With d = code − zero_point of the
/// codes that it reads, f extra bits and, for LayerNorm, the mean taken off: e = d·2^f − mean; u = e / √(Σe²
/// + eps) in units of 2^−kUnitBits, times √n; output = rescale(u · weight + bias).
struct IntegerNorm {
  NormSource source = NormSource::stream;
  int64_t group = 0;         ///< n
  bool own_weights = false;  ///< every group has weights of its own, else they share one group's
  bool subtract_mean = false;
  StreamFormat stream;     ///< of NormSource::stream
  StreamRead read;         ///< of NormSource::other_stream
  CodeTable input_table;   ///< where the input is rounded again on its way in
  int32_t zero_point = 0;  ///< of the codes after the table
  int32_t extra_bits = 0;  ///< f
  int64_t eps = 0;         ///< n·eps in units of e²
  uint64_t root_n = 0;     ///< √n · 2^root_n_bits, between 2^60 and 2^61
  int32_t root_n_bits = 0;
  std::vector<int32_t> weight;  ///< code − zero point
  std::vector<int64_t> bias;    ///< empty, or in units of u · weight
  Rescale factor;
  CodeRange output;
  CodeTable output_table;
};
inline constexpr int32_t kUnitBits = 20;

/// stream ← stream · keep + update · join, from one norm's step to the next one's.
struct IntegerAdd {
  int32_t update_zero_point = 0;
  int32_t bits = 0;    ///< from the output's guard bits to kAddBits, as many as the factors have room for
  Rescale keep, join;  ///< to 2^−bits of the new step: one rounding at the end
  StreamFormat output;
};
inline constexpr int32_t kAddBits = 16;

/// Rotary embedding from a projection's output to the scores' operand.
struct IntegerRotary {
  int32_t zero_point = 0;
  Rescale rotated;  ///< of d·cos − d·sin with the angles' fractional bits
  Rescale passed;   ///< of the channels that do not rotate
  CodeRange output;
  size_t angles = 0;  ///< which of the model's tables it turns by
};
/// Fractional bits of cosines and sines; fewer where a factor takes them beyond 1.
inline constexpr int32_t kAngleBits = 30;

/// exp(−δ·step) of a difference δ of score codes, in 2^−kExpBits. As a power of two: with y = min(δ, limit) ·
/// (high + low / 2^16), rounded to 19 of its `fraction_bits`, 2^−y = 2^−⌊y⌋ · 2^−j/8 · 2^−f/2^19, of which
/// eight entries hold the second factor and a cubic is the third.
struct ExpTable {
  uint32_t limit = 0, high = 0, low = 0;
  int32_t fraction_bits = 19;
  std::array<uint32_t, 8> powers{};  ///< 2^(kExpBits − j/8)
  std::array<uint32_t, 8> slopes{};  ///< powers · ln 2 / 8 / 2^12
};
inline constexpr int32_t kExpBits = 31;

/// What the key and the value of position 0, on grids of their own, are to the queries behind it; and its
/// value to its own query, which sees nothing else. Their codes are as wide as the others'.
struct IntegerFirstKey {
  int32_t k_zero_point = 0, v_zero_point = 0;  ///< as kept in the cache
  Rescale score_factor;
  Rescale value_factor;  ///< of products of probability and value: to units of the others'
  Rescale own_factor;    ///< of the value: to the mix of its own query …
  CodeRange own_codes;   ///< … on its grid
};

/// Scores, softmax and mix of one layer.
struct IntegerAttention {
  int64_t kv_heads = 0, head_dim = 0, value_dim = 0;
  bool lends = false, borrows = false;         ///< keys and values: to a later layer, of an earlier one
  int32_t q_zero_point = 0, k_zero_point = 0;  ///< of the codes as stored; k's as kept in the cache
  bool narrow_q = true, narrow_k = true, narrow_v = true;
  int32_t k_offset = 0, v_offset = 0;  ///< cache code = code − offset, so that a narrow one fits int8_t
  Rescale score_factor;
  CodeRange score_codes;
  CodeTable cap;  ///< the soft cap, with the scale: from scores' codes to its own
  ExpTable exp;
  uint64_t inverse_step = 0;  ///< 2^inverse_bits / scale of the probabilities, 2^61 … 2^62
  int32_t inverse_bits = 0;
  CodeRange probability_codes;
  int32_t v_zero_point = 0;
  Rescale mix_factor;
  CodeRange mix_codes;
  std::optional<IntegerFirstKey> first;
};

/// gate ← gate · up, as the down projection's input; in front of a rotation, as what that reads.
struct IntegerProduct {
  bool exact = false;  ///< the products themselves (RotationSource)
  bool wide = false;   ///< in 64 bits
  int32_t gate_zero_point = 0, up_zero_point = 0;
  Rescale factor;
  CodeRange output;
};

/// What a rotation reads: codes, or the products of an IntegerProduct, a row of which has room for 64 bits a
/// number and holds 32 or 64.
enum class RotationSource : uint8_t { codes, products };

/// value ← value · H in exact sums, then requantized (model::HadamardOp). No sum exceeds 32 bits, or 64 where
/// they are wide.
struct IntegerHadamard {
  model::HadamardMatrix matrix;
  RotationSource source = RotationSource::codes;
  bool wide = false;
  int32_t zero_point = 0;  ///< of codes
  Rescale factor;
  CodeRange output;
};

/// exp(−δ · step) of a difference δ ≥ 0 of codes, in 2^−kShareBits: fine[δ mod 2^8] · coarse[⌊δ / 2^8⌋], 0
/// beyond the last.
struct PowerTable {
  std::vector<uint32_t> fine, coarse;
};
inline constexpr int32_t kShareBits = 31;
inline constexpr int32_t kFineBits = 8;

/// Which experts a row is given to by the codes of its router's logits (model::RouteOp), and the codes of
/// their weights: rescale(share), a share in 2^−kShareBits.
struct IntegerRouter {
  model::RouteOp::Scores scores = model::RouteOp::Scores::softmax;
  int64_t experts = 0, used = 0;
  bool normalize = false;
  int64_t groups = 1, used_groups = 1;
  int32_t zero_point = 0;  ///< of the logits
  PowerTable power{};
  uint64_t least_sum = 0, added_sum = 0;  ///< in 2^−kShareBits
  int64_t jitter = 0;                     ///< how near the best, twice RouteOp's, in 2^−kShareBits
  std::vector<int64_t> correction{};      ///< [experts] in 2^−kShareBits, or empty
  std::vector<Rescale> factors{};         ///< of all experts, or [experts]
  CodeRange codes{};
};

/// out ← Σ weight · expert + share · shared, both parts rounded once, together.
struct IntegerMix {
  int32_t bits = 0;  ///< fractional bits of the parts
  int32_t weight_zero_point = 0, expert_zero_point = 0, shared_zero_point = 0;
  Rescale experts{};  ///< of Σ weight · expert
  Rescale shared{};   ///< of the shared expert's codes, or of them times a share
  PowerTable gate{};  ///< of the shared expert's gate, behind the sigmoid
  int32_t gate_zero_point = 0;
  CodeRange output{};
};
inline constexpr int32_t kMixBits = 12;

/// to ← to + factor · in, where neither is the residual stream; both parts rounded once, together.
struct IntegerSum {
  int32_t bits = 0;  ///< fractional bits of the parts
  int32_t to_zero_point = 0, in_zero_point = 0;
  Rescale to, in;
  CodeRange output;
};

struct IntegerLayer {
  std::map<model::Module, IntegerNorm> norms;
  std::map<model::Module, IntegerMatrix> linears;
  std::map<model::Module, std::vector<IntegerMatrix>> experts;
  IntegerRouter router;
  IntegerMix mix;
  std::map<model::Value, IntegerRotary> rotations;
  IntegerAttention attention;
  std::map<model::Module, IntegerAdd> adds;  ///< by what made the update
  std::map<model::Module, IntegerSum> sums;
  bool negates =
      false;  ///< whether the factor of the residual stream, which else is in its unit, is negative
  std::map<model::Module, CodeTable> activations;
  std::map<model::Module, IntegerProduct> products;  ///< by what reads them
  std::map<model::Value, IntegerHadamard> hadamards;
};

/// A linear map of rows at position 0, whose inputs have up to 16 bits, by the weights of an IntegerMatrix.
/// Output j: rescale((Σ (x − zero_point)·w) · 2^raise + bias[j]), w the codes less their zero points.
struct IntegerFirstLinear {
  int32_t zero_point = 0;  ///< of the input
  int32_t raise = 0;
  std::vector<int64_t> bias;
  std::vector<Rescale> factors;
  std::vector<int32_t> group_multipliers;  ///< of weights in groups: IntegerMatrix's, for this input's reach
  CodeTable input_table;
  std::optional<StreamRead> stream;
  CodeRange output;
  CodeTable output_table;
};

/// What position 0 computes with where it has grids of its own: everything but weights, keys and values.
struct IntegerFirst {
  std::vector<IntegerLayer> layers;  ///< without linear maps; of the attention nothing is used
  std::vector<std::map<model::Module, IntegerFirstLinear>> linears;
  IntegerNorm final_norm;
};

struct IntegerModel {
  std::vector<IntegerLayer> layers;
  std::optional<IntegerFirst> first;
  IntegerNorm final_norm;
  IntegerMatrix head;  ///< to 32-bit logits of one scale

  int64_t byte_count() const;
};

}  // namespace qeval::quant
