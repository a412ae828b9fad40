#pragma once

#include <memory>
#include <string>

#include "model/arithmetic.h"
#include "model/kernels/bf16.h"
#include "model/rotary.h"

namespace qeval::model {

/// float32 throughout. The base of the fake-quantized arithmetic, which rounds what these operations produce.
///
/// A KvBlock holds, per key/value head: the keys as panels of `kernels().panel` tokens [head_dim, panel],
/// then the values [tokens, head_dim padded to whole panels], so that both attention products read it in
/// place.
class FloatArithmetic : public Arithmetic {
 public:
  FloatArithmetic(const Model& model, int64_t max_positions);

  std::string name() const override { return "float"; }
  bool has_float_tensors() const override { return true; }
  void embed(std::span<const int32_t> tokens, Tensor& residual) const override;
  void norm(int64_t layer, NormPoint point, const Tensor& residual, Tensor& out) const override;
  void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const override;
  void rotate(int64_t layer, Projection which, std::span<const int32_t> positions,
              Tensor& heads) const override;
  int64_t kv_bytes(int64_t tokens) const override;
  void store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                const KvBlock& block, int64_t at) const override;
  void scores(const AttentionTile& tile, const Tensor& q) const override;
  void softmax(const AttentionTile& tile) const override;
  void mix(const AttentionTile& tile, Tensor& out) const override;
  void shape_mixed(int64_t rows, Tensor& out) const override;
  void add(int64_t layer, Projection from, const Tensor& update, Tensor& residual) const override;
  void activate(int64_t layer, Tensor& gate) const override;
  void multiply(int64_t layer, const Tensor& up, Tensor& gate) const override;
  void gather(const Tensor& residual, std::span<const int64_t> rows, Tensor& out) const override;
  void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 protected:
  const Model& model() const { return model_; }
  const ModelConfig& config() const { return model_.config; }
  int64_t group() const { return config().num_heads / config().num_kv_heads; }
  /// Shapes the targets' tensors for an input of `rows` rows; what is to be multiplied.
  std::vector<Product> products(int64_t layer, int64_t rows, std::span<const Target> targets) const;
  /// The weights behind a projection of a block.
  const LinearWeights& weights(int64_t layer, Projection projection) const;
  /// Distance between the rows of a score tile.
  int64_t score_stride(const AttentionTile& tile) const;
  /// Keys that any query of the tile sees.
  static int64_t visible_keys(const AttentionTile& tile) { return tile.first_position + tile.query_count; }
  /// q · kᵀ over the first `keys` keys of the path.
  void score_keys(const AttentionTile& tile, const Tensor& q, int64_t keys) const;

 private:
  int64_t value_stride() const;

  const Model& model_;
  RotaryTable rotary_;
};

/// The same with the linear maps' operands rounded to bfloat16 on the way into the CPU's dot products; sums,
/// attention and everything else stay float32.
class Bf16Arithmetic final : public FloatArithmetic {
 public:
  Bf16Arithmetic(const Model& model, int64_t max_positions, Bf16Kernel kernel);

  std::string name() const override { return "float-bf16"; }
  void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const override;
  void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 private:
  Bf16Kernel kernel_;
};

}  // namespace qeval::model
