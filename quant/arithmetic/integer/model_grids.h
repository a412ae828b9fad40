#pragma once

#include <map>
#include <optional>
#include <span>
#include <vector>

#include "model/weights.h"
#include "quant/arithmetic/integer/point_grid.h"
#include "quant/grid/qcfg.h"

namespace qeval::quant {

// What the tensors that a model's operations hand to one another are rounded to, found by walking its graph.
// Load time, and for whoever looks at codes.

/// Of a norm, a linear map, a rotary embedding or an activation.
struct OperationGrids {
  std::optional<StreamGrid> stream{};  ///< of the residual stream that it reads …
  bool stream_is_own = true;           ///< the stream's step is that of this reader's range
  PointGrid in{};                      ///< … or of the codes
  PointGrid rounded_in{};              ///< on which it computes
  PointGrid made{};                    ///< of its result
  PointGrid out{};  ///< that it leaves behind: where the attention rounds the result again, that
  Point point{};    ///< where its result is rounded
  /// Of a rotary embedding in front of a rotation: no point has its result, which is on a grid that follows
  /// from its input's.
  bool derived = false;
};

struct AttentionGrids {
  PointGrid q, k, v, scores;
  PointGrid capped;  ///< of scores behind the soft cap, where there is one
  PointGrid probabilities, mixed;
};

struct ProductGrids {
  PointGrid gate, up, out;
  bool exact = false;  ///< the result stays as it is, in steps of gate's times up's: a rotation reads it
};

struct HadamardGrids {
  std::optional<ProductGrids> product{};  ///< whose result it reads …
  PointGrid in{};                         ///< … or codes
  PointGrid out{};
  Point point{};
};

/// Of the experts' weighted sum. Without a shared expert, or a gate of it, those are what they are.
struct MixGrids {
  PointGrid weights, experts, shared, gate, out;
};

struct AddGrids {
  StreamGrid stream;
  PointGrid update;
  StreamGrid next;
  Point reader;  ///< of the sum: the stream is on its grid
};

/// Of an addition to another tensor than the residual stream.
struct SumGrids {
  PointGrid to, in, out;
  Point reader;  ///< of the sum, on whose grid it is
};

/// Of the residual stream before and behind its factor: the same numbers in another unit.
struct FactorGrids {
  StreamGrid before, behind;
  Point reader;
};

struct LayerGrids {
  std::map<Module, OperationGrids> modules;  ///< norms and linear maps
  std::map<model::Value, OperationGrids> rotations;
  AttentionGrids attention;
  std::map<Module, OperationGrids> activations;
  std::map<Module, ProductGrids> products;  ///< by what reads them
  PointGrid router;                         ///< of the logits
  MixGrids mix;
  std::map<model::Value, HadamardGrids> hadamards;
  std::map<Module, AddGrids> adds;  ///< by what made the update
  std::map<Module, SumGrids> sums;
  std::optional<FactorGrids> factor;
};

/// The same of a whole model: where the embedding's rows come to stand, its blocks, the final norm's input
/// and what the head reads.
struct ModelGrids {
  StreamGrid embedded;
  Point embedded_at;
  std::vector<LayerGrids> layers;
  StreamGrid stream;
  PointGrid normed;
};

/// The grids of a configuration's points. Settings that integers cannot do are Errors that name the point.
class GridSource {
 public:
  /// `qcfg` as integers compute it (integer_config); of `ranges`, the final norm's input is used where it is
  /// there. A factor of the residual stream that is 0 is an Error that names its tensor.
  GridSource(const model::Model& model, QuantConfig qcfg, const ActRanges& ranges, int32_t guard_bits);

  const QuantSpec& spec(const Point& point) const { return qcfg_[point]; }
  /// The grid of an activation point, which integers cannot do without.
  PointGrid required(const Point& point) const;
  /// The grid of a point that may be left alone: then its tensor stays on the grid it has.
  PointGrid optional(const Point& point, const PointGrid& present) const;
  /// The residual stream where this point reads it: always 16 bits and the guard bits, on the point's range.
  StreamGrid stream(const Point& reader) const;
  /// A 16-bit grid for all that a rotary embedding can make of codes of `grid`: pairs of channels turn, so
  /// that none grows by more than √2, and by the factors of the angles.
  PointGrid turned(const PointGrid& grid, const model::RotateOp& op) const;
  /// The residual stream from operation `first` of a block on: in a unit that factors on its way to its next
  /// reader make that of the reader.
  StreamGrid stream(int64_t layer, size_t first) const;
  /// Of the block behind those of `earlier`. Operations without an integer form have been refused.
  LayerGrids layer(std::span<const LayerGrids> earlier) const;
  /// Who reads the residual stream from operation `first` of a block on: the final norm where nobody else
  /// does.
  Point stream_reader(int64_t layer, size_t first) const;

 private:
  /// The final norm's input: its own range where known, else all that the last additions can reach.
  Range final_range() const;

  const model::ModelConfig& config_;
  std::vector<float> factors_;  ///< of the residual stream, a block each; empty where there are none
  QuantConfig qcfg_;
  std::optional<Range> final_;
  ActRanges ranges_;
  int32_t guard_bits_;
};

}  // namespace qeval::quant
