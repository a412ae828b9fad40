#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "model/decoder.h"
#include "model/float_arithmetic.h"
#include "quant/grid/points.h"

namespace qeval::quant {

/// Receives what the float model computes at every point. Called from many threads at once, with the rows of
/// a tensor in pieces and in no fixed order; scores, probabilities and logits come in pieces of columns too.
class PointObserver {
 public:
  virtual ~PointObserver() = default;
  /// `rows` rows of `cols` values, `stride` apart.
  virtual void observe(const Point& point, const float* x, int64_t rows, int64_t cols, int64_t stride) = 0;
  /// Whether a point matters: logits that do not are not computed.
  virtual bool wants(const Point&) const { return true; }
};

/// Locks for observers that keep something per point: different points rarely share one.
class PointLocks {
 public:
  std::mutex& operator[](const Point& point) {
    const auto hash = static_cast<size_t>(point.layer * kBlockModules + static_cast<int64_t>(point.module)) *
                          static_cast<size_t>(kSlots) +
                      static_cast<size_t>(point.slot);
    return locks_[hash % locks_.size()];
  }

 private:
  std::array<std::mutex, 67> locks_;
};

/// The float arithmetic, every operation reporting to an observer. Scores are computed and reported over the
/// whole square of the tile's keys, probabilities with the zeros of the hidden ones. Logits are zeros where
/// the observer does not want them.
class ObservedArithmetic : public model::FloatArithmetic {
 public:
  /// Both must outlive the arithmetic. `skip_first`: rows at position 0 are not reported.
  ObservedArithmetic(const model::Model& model, int64_t max_positions, PointObserver& observer,
                     bool skip_first = false);

  void norm(int64_t layer, const model::NormOp& op, const model::Tensor& in,
            model::Tensor& out) const override;
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
              model::Tensor& heads) const override;
  bool wants_all_keys() const override { return true; }
  void scores(const model::AttentionTile& tile, const model::Tensor& q) const override;
  void softmax(const model::AttentionTile& tile) const override;
  void activate(int64_t layer, const model::ActivateOp& op, model::Tensor& gate) const override;
  void multiply(int64_t layer, const model::MultiplyOp& op, const model::Tensor& up,
                model::Tensor& gate) const override;
  void hadamard(int64_t layer, const model::HadamardOp& op, model::Tensor& value) const override;
  void expert_linear(int64_t layer, const model::Tensor& in, const model::Routing& routing,
                     std::span<const Target> targets) const override;
  void mix_experts(int64_t layer, const model::MixExpertsOp& op, const ExpertResults& results,
                   const model::Routing& routing, model::Tensor& out) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 private:
  void report(const Point& point, const model::Tensor& tensor) const;
  /// At the operand's point, which the operation that changed it last hands it over at.
  void report_operand(int64_t layer, model::Operand operand, const model::Tensor& tensor) const;

  /// Rows [first, last) of a tensor that stands where `positions` does; x is the first of them.
  void report_rows(const Point& point, const model::Tensor& positions, const float* x, int64_t first,
                   int64_t last, int64_t cols) const;

  /// Rows of a tile that are not reported: those of the query at position 0, which come first.
  int64_t skipped_rows(const model::AttentionTile& tile) const {
    return skip_first_ && tile.first_position == 0 ? tile.op->group() : 0;
  }

  PointObserver& observer_;
  bool skip_first_;
};

/// Runs the model over sequences of one token each, the logits included.
void run_first_tokens(const model::Model& model, const model::Arithmetic& arithmetic,
                      std::span<const int32_t> tokens);

/// A sample as a batch of its own. `kv` has room for all of it.
model::Batch sample_batch(const model::Model& model, std::span<const int32_t> sample, model::KvSpan& kv);

/// Runs the model over one sample of at least one token, the logits of every position included. Returns the
/// answers for its tokens from the second one on.
std::vector<model::TokenAnswer> run_sample(const model::Model& model, const model::Arithmetic& arithmetic,
                                           std::span<const int32_t> sample);

}  // namespace qeval::quant
