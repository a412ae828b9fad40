#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/float_arithmetic.h"
#include "quant/arithmetic/coded_linear.h"

namespace qeval::quant {

/// The simulation of a checkpoint that says itself how inputs and outputs of its linear maps, keys and values
/// are rounded (FP8, int8, NVFP4 and MX files): float32 throughout, those tensors rounded to their codes and
/// back, as the format's library computes them.
class CheckpointArithmetic : public model::FloatArithmetic {
 public:
  /// Throws Error where the checkpoint rounds something this cannot: naming it. `model` must outlive the
  /// arithmetic.
  CheckpointArithmetic(const model::Model& model, int64_t max_positions);

  std::string name() const override { return "fake"; }
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void expert_linear(int64_t layer, const model::Tensor& in, const model::Routing& routing,
                     std::span<const Target> targets) const override;
  void store_kv(int64_t layer, const model::Tensor& k, const model::Tensor& v, int64_t first_row,
                int64_t count, const model::KvBlock& block, int64_t at) const override;
  void finish(const model::Tensor& residual, model::Tensor& out) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 protected:
  void project_layers(const model::Tensor& embedded, model::Tensor& out) const override;
  /// The products of linear maps whose input is rounded alike.
  virtual void multiply_alike(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const;
  /// The head's product with what finish() made.
  virtual void multiply_head(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const {
    head_product(normed, first, count, logits);
  }
};

/// The same with the products of 8-bit integers by 8-bit integers computed as such (CodedLinear), the rest
/// as the simulation computes it: other sums of the same codes.
class CheckpointIntegerArithmetic final : public CheckpointArithmetic {
 public:
  /// Throws Error where no linear map has such products. `model` must outlive the arithmetic.
  CheckpointIntegerArithmetic(const model::Model& model, int64_t max_positions);

  std::string name() const override { return "integer"; }
  void finish(const model::Tensor& residual, model::Tensor& out) const override;

  /// Linear maps of blocks and head: computed in integers, and all.
  int64_t integer_linears() const { return integer_linears_; }
  int64_t linears() const { return linears_; }

 protected:
  void multiply_alike(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void multiply_head(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 private:
  std::vector<std::map<model::Module, CodedLinear>> layers_;
  std::optional<CodedLinear> head_;
  int64_t integer_linears_ = 0, linears_ = 0;
};

}  // namespace qeval::quant
