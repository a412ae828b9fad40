#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "model/arithmetic.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/arithmetic/integer/integer_arithmetic.h"
#include "quant/arithmetic/integer/model_grids.h"
#include "quant/calibrate/calibration.h"

namespace qeval::quant {

/// How far the integers of one tensor are from the simulation's, in steps of the tensor's grid.
struct StepDifference {
  int64_t values = 0;     ///< compared
  int64_t different = 0;  ///< of them, not equal
  int64_t total = 0;      ///< Σ |difference|
  int32_t largest = 0;

  double mean() const { return values == 0 ? 0.0 : static_cast<double>(total) / static_cast<double>(values); }
};

/// An arithmetic to measure with: runs the simulation, and hands each operation's input, as codes, to the
/// integer operation as well. The results are compared at the point where the operation's output is rounded;
/// residual additions and the embedding at the input of the norm or linear map that reads them, on the
/// stream's 16 bits. Both see the same input every time, so that what differs is the operation's own
/// rounding.
class ComparingArithmetic final : public model::Arithmetic {
 public:
  /// Whether the operation whose output is rounded at this point continues with the integer result instead of
  /// the simulated one: what does the model lose by this operation alone?
  using Choice = std::function<bool(const Point&)>;

  /// Both arithmetics are of `model`, with the same configuration and ranges, and must outlive this one.
  ComparingArithmetic(const model::Model& model, const FakeArithmetic& fake, const IntegerArithmetic& integer,
                      Choice take_integer = {});

  /// So far, by the point of the operation's output. Points that nothing was compared at have no values.
  const PointMap<StepDifference>& differences() const { return differences_; }
  /// Rows that were given to experts, and those whose experts the integers chose otherwise.
  int64_t routed() const { return routed_; }
  int64_t routed_otherwise() const { return routed_otherwise_; }

  std::string name() const override { return "comparison"; }
  void embed(std::span<const int32_t> tokens, const model::RowPositions& rows,
             model::Tensor& residual) const override;
  void norm(int64_t layer, const model::NormOp& op, const model::Tensor& in,
            model::Tensor& out) const override;
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
              model::Tensor& heads) const override;
  void split_latent(int64_t layer, const model::SplitLatentOp& op, const model::Tensor& latent,
                    const model::Tensor& heads, model::Tensor& k, model::Tensor& v) const override;
  void route(int64_t layer, const model::RouteOp& op, const model::Tensor& logits,
             model::Routing& routing) const override;
  void dispatch(int64_t layer, const model::DispatchOp& op, const model::Tensor& in,
                const model::Routing& routing, model::Tensor& out) const override;
  void expert_linear(int64_t layer, const model::Tensor& in, const model::Routing& routing,
                     std::span<const Target> targets) const override;
  void mix_experts(int64_t layer, const model::MixExpertsOp& op, const ExpertResults& results,
                   const model::Routing& routing, model::Tensor& out) const override;
  int64_t layers() const override { return fake_.layers(); }
  void scale(int64_t layer, const model::ScaleOp& op, const model::Tensor& in,
             model::Tensor& out) const override;
  void embed_layers(std::span<const int32_t> tokens, const model::Tensor& embedded,
                    model::Tensor& out) const override;
  bool lends_kv(int64_t layer) const override { return fake_.lends_kv(layer); }
  int64_t kv_bytes(int64_t layer, int64_t tokens) const override;
  void store_kv(int64_t layer, const model::Tensor& k, const model::Tensor& v, int64_t first_row,
                int64_t count, const model::KvBlock& block, int64_t at) const override;
  void scores(const model::AttentionTile& tile, const model::Tensor& q) const override;
  void softmax(const model::AttentionTile& tile) const override;
  void mix(const model::AttentionTile& tile, model::Tensor& out) const override;
  void shape_mixed(const model::AttentionOp& op, int64_t rows, model::Tensor& out) const override;
  void add(int64_t layer, const model::AddOp& op, const model::Tensor& update,
           model::Tensor& residual) const override;
  void activate(int64_t layer, const model::ActivateOp& op, model::Tensor& gate) const override;
  void multiply(int64_t layer, const model::MultiplyOp& op, const model::Tensor& up,
                model::Tensor& gate) const override;
  void hadamard(int64_t layer, const model::HadamardOp& op, model::Tensor& value) const override;
  void gather(const model::Tensor& residual, std::span<const int64_t> rows,
              model::Tensor& out) const override;
  void finish(const model::Tensor& residual, model::Tensor& out) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 private:
  /// Of the others, or of rows at position 0.
  const LayerGrids& grids(int64_t layer, bool first = false) const {
    return (first && first_ != nullptr ? *first_ : grids_).layers[static_cast<size_t>(layer)];
  }
  /// Of a row of a tensor.
  const LayerGrids& grids(int64_t layer, const model::Tensor& tensor, int64_t r) const {
    return grids(layer, tensor.is_first(r));
  }
  /// The results of maps that `compute` is given the integers' input and targets of.
  template <typename Compute>
  void compare_linears(int64_t layer, const model::Tensor& in, std::span<const Target> targets,
                       const Compute& compute) const;
  const ModelGrids& model_grids(const model::Tensor& tensor, int64_t r) const {
    return first_ != nullptr && tensor.is_first(r) ? *first_ : grids_;
  }
  /// Bytes of the simulation's share of a KvBlock; the integers' follows.
  int64_t fake_kv_bytes(int64_t layer, int64_t tokens) const;
  std::vector<model::KvPiece> integer_path(const model::AttentionTile& tile) const;
  /// Products as the integers have them.
  model::Tensor to_products(int64_t layer, model::Value value, const model::Tensor& values) const;
  /// Whether a row of a tile is of the query at position 0 where that has grids of its own: it sees one key,
  /// so that integers compute neither its scores nor its probabilities.
  bool is_alone(const model::AttentionTile& tile, int64_t r) const {
    return first_ != nullptr && tile.first_position == 0 && r < tile.op->group();
  }
  void record(const Point& point, const PointGrid& grid, const int16_t* codes, const float* values,
              int64_t n) const;
  /// Compares `n` integer codes with the simulation's values, and replaces the values where chosen.
  void compare(const Point& point, const PointGrid& grid, const int16_t* codes, float* values,
               int64_t n) const;
  /// The same of a tensor, `grid_of` a row.
  template <typename GridOf>
  void compare(const Point& point, const GridOf& grid_of, const model::Tensor& codes,
               model::Tensor& values) const;
  /// The same of the residual stream, which is compared on its 16 bits.
  template <typename GridOf>
  void compare_stream(const Point& point, const GridOf& grid_of, const model::Tensor& stream,
                      model::Tensor& values) const;

  const FakeArithmetic& fake_;
  const IntegerArithmetic& integer_;
  const ModelGrids& grids_;
  const ModelGrids* first_;  ///< of position 0, where it has its own
  Choice take_integer_;
  mutable std::mutex mutex_;
  mutable PointMap<StepDifference> differences_;
  mutable int64_t routed_ = 0, routed_otherwise_ = 0;
};

/// The samples through a ComparingArithmetic, each on its own.
PointMap<StepDifference> compare_operations(const model::Model& model, const FakeArithmetic& fake,
                                            const IntegerArithmetic& integer, const Samples& samples,
                                            const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace qeval::quant
