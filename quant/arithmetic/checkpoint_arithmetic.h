#pragma once

#include <optional>
#include <string>

#include "model/float_arithmetic.h"

namespace qeval::quant {

/// The simulation of a checkpoint that says itself how inputs and outputs of its linear maps, keys and values
/// are rounded (FP8, int8, NVFP4 and MX files): float32 throughout, those tensors rounded to their codes and
/// back, as the format's library computes them.
class CheckpointArithmetic final : public model::FloatArithmetic {
 public:
  /// Throws Error where the checkpoint rounds something this cannot: naming it. `model` must outlive the
  /// arithmetic.
  CheckpointArithmetic(const model::Model& model, int64_t max_positions);

  std::string name() const override { return "fake"; }
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void store_kv(int64_t layer, const model::Tensor& k, const model::Tensor& v, int64_t first_row,
                int64_t count, const model::KvBlock& block, int64_t at) const override;
  void finish(const model::Tensor& residual, model::Tensor& out) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;
};

}  // namespace qeval::quant
