#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/weights.h"
#include "quant/grid/qcfg.h"
#include "quant/methods/learn/train_kernels.h"

namespace qeval::quant {

/// What is learned, each with its own learning rate (docs/specification.md#methods).
enum class ParameterGroup : uint8_t {
  let,  ///< scales of weight-equivalent transformations
  lwc,  ///< bounds of the weights' clipping
  lrl,  ///< scales and offsets of the activations' quantizers
  code  ///< weights that are rounded to codes of grids that stay
};
inline constexpr int64_t kParameterGroups = 4;

/// A learnable vector and the gradient of the loss with respect to it.
template <typename Real>
struct Parameter {
  std::string name;  ///< "0.qkv_smooth_scale", "2.mlp.w1.weight_quantizer.upbound_factor", …
  ParameterGroup group = ParameterGroup::let;
  std::vector<Real> value, gradient;
  double rate_factor = 1;  ///< what the group's learning rate is multiplied by
};

/// A weight-equivalent transformation: the producer's output channels are divided by a scale each, and the
/// consumers' input columns multiplied by it; of `rows` edges (q ↔ k, whose product is taken), the consumers'
/// output rows.
struct LetEdge : model::ScaleEdge {
  bool rows = false;

  bool feeds(Module module) const { return std::ranges::find(consumers, module) != consumers.end(); }
};

/// The edges of a block's graph where a transformation may be learned: norm → what reads it; up → down if
/// `modified`; v → o; and q ↔ k, where every head has keys of its own and no norm stands between a projection
/// and the scores, which would undo a scale.
std::vector<LetEdge> let_edges(const model::BlockGraph& block, bool modified);

/// The scales of an edge, [output channels of the producer].
template <typename Real>
struct LetScale : Parameter<Real> {
  LetEdge edge{};
};

/// Which parameters are learned.
struct LearnOptions {
  bool modified = true;  ///< up → down as well (the paper's "Edge"); else the original OmniQuant
  bool ranges = false;   ///< the activation quantizers too
  /// Where given, the linear maps' weights that it enables are codes on these grids, and stay: each grid has
  /// a factor of its scale, and each norm with weights one of every weight; there are no other
  /// transformations. qcfg leaves these weights alone.
  const QuantConfig* codes = nullptr;
  /// With `codes`, where given: the model whose weights they are, and of which those of fewer than
  /// kFewestBitsThatStay bits are learned too.
  const model::Model* coded = nullptr;
};
/// Of 8 bits a step is so small that no other code would say more.
inline constexpr int kFewestBitsThatStay = 8;

/// All learnable numbers of one block. Absent ones are empty vectors.
template <typename Real>
struct BlockParameters {
  std::vector<LetScale<Real>> let;                          ///< one per edge
  std::array<Parameter<Real>, kBlockModules> upper, lower;  ///< of the modules with a quantized weight
  std::array<Parameter<Real>, kBlockModules> factor;        ///< of the modules whose codes stay
  std::array<QuantSpec, kBlockModules> codes{};             ///< those codes' grids
  /// Of the modules whose codes are learned, [rows, cols]: where a weight stands, in steps of its grid as
  /// codes are stored (QuantizedMatrix); it is rounded to the nearest. The gradient is with respect to the
  /// weight: of a step it would be that times the step, and Adam knows signs and ratios only.
  std::array<Parameter<Real>, kBlockModules> code;
  std::array<Parameter<Real>, kBlockModules * kSlots> scale, offset;  ///< of the quantized activation points
  bool ranges_learned = false;

  static size_t slot_index(Module module, Slot slot) {
    return static_cast<size_t>(module) * static_cast<size_t>(kSlots) + static_cast<size_t>(slot);
  }
  /// Every parameter that is learned, in a fixed order.
  std::vector<Parameter<Real>*> learned();
  /// `of_codes`: those of codes too.
  void clear_gradients(bool of_codes = true);
  /// Keeps transformation scales away from 0: |scale| ≥ 0.01, sign kept.
  void bound_let();
};

/// The starting point: scales 1, bounds 4, activation grids of `ranges` (completed, of all points that qcfg
/// quantizes). Errors name points that cannot be learned: dynamic activations, weight groups.
template <typename Real>
BlockParameters<Real> initial_parameters(const model::ModelConfig& config, const QuantConfig& qcfg,
                                         const ActRanges& ranges, int64_t layer, const LearnOptions& options);

/// Writes the block's activation grids as ranges [−z·s, (q_max − z)·s], s clamped to [1e-5, 1e6], z real
/// (symmetric points: [q_min·s, q_max·s]).
void export_ranges(const BlockParameters<float>& parameters, const model::ModelConfig& config,
                   const QuantConfig& qcfg, int64_t layer, ActRanges& ranges);

}  // namespace qeval::quant
