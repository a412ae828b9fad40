#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "model/arithmetic.h"
#include "model/hadamard.h"
#include "model/kernels/bf16.h"
#include "model/kernels/gemm.h"
#include "model/rotary.h"

namespace qeval::model {

inline float sigmoid(float x) {
  return 1.0F / (1.0F + std::exp(-x));
}

/// What follows the head's product: the logits' factor and soft cap.
void finish_logits(const ModelConfig& config, float* logits, int64_t n);

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
  void embed(std::span<const int32_t> tokens, const RowPositions& rows, Tensor& residual) const override;
  void norm(int64_t layer, const NormOp& op, const Tensor& in, Tensor& out) const override;
  void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const override;
  void rotate(int64_t layer, const RotateOp& op, const RowPositions& rows, Tensor& heads) const override;
  void split_latent(int64_t layer, const SplitLatentOp& op, const Tensor& latent, const Tensor& heads,
                    Tensor& k, Tensor& v) const override;
  void route(int64_t layer, const RouteOp& op, const Tensor& logits, Routing& routing) const override;
  void dispatch(int64_t layer, const DispatchOp& op, const Tensor& in, const Routing& routing,
                Tensor& out) const override;
  void expert_linear(int64_t layer, const Tensor& in, const Routing& routing,
                     std::span<const Target> targets) const override;
  void mix_experts(int64_t layer, const MixExpertsOp& op, const ExpertResults& results,
                   const Routing& routing, Tensor& out) const override;
  void gate(int64_t layer, const GateOp& op, const Tensor& gate, Tensor& value) const override;
  void scale(int64_t layer, const ScaleOp& op, const Tensor& in, Tensor& out) const override;
  void clamp(int64_t layer, const ClampOp& op, Tensor& value) const override;
  void convolve(int64_t layer, const ConvolveOp& op, std::span<const StateSegment> segments,
                Tensor& value) const override;
  void delta_rule(int64_t layer, const DeltaRuleOp& op, const MixerInputs& in,
                  std::span<const StateSegment> segments, Tensor& out) const override;
  void state_space(int64_t layer, const StateSpaceOp& op, const MixerInputs& in,
                   std::span<const StateSegment> segments, Tensor& out) const override;
  int64_t state_offset(int64_t layer, int64_t tokens) const override;
  void altup(int64_t layer, const AltupOp& op, const Tensor& predicted, const Tensor& update, Tensor& active,
             Tensor& others) const override;
  void embed_layers(std::span<const int32_t> tokens, const Tensor& embedded, Tensor& out) const override;
  bool lends_kv(int64_t layer) const override;
  int64_t layers() const override { return config().num_layers; }
  int64_t kv_bytes(int64_t layer, int64_t tokens) const override;
  void store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                const KvBlock& block, int64_t at) const override;
  void scores(const AttentionTile& tile, const Tensor& q) const override;
  void softmax(const AttentionTile& tile) const override;
  void mix(const AttentionTile& tile, Tensor& out) const override;
  void shape_mixed(const AttentionOp& op, int64_t rows, Tensor& out) const override;
  void add(int64_t layer, const AddOp& op, const Tensor& update, Tensor& residual) const override;
  void activate(int64_t layer, const ActivateOp& op, Tensor& gate) const override;
  void multiply(int64_t layer, const MultiplyOp& op, const Tensor& up, Tensor& gate) const override;
  void hadamard(int64_t layer, const HadamardOp& op, Tensor& value) const override;
  void gather(const Tensor& tensor, std::span<const int64_t> rows, Tensor& out) const override;
  void finish(const Tensor& residual, Tensor& out) const override;
  void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const override;
  /// Distance between the rows of a score tile: an odd number of cache lines, since rows a power of two apart
  /// would share the few places of the first-level cache that one address has.
  static int64_t score_stride(const AttentionTile& tile) {
    constexpr int64_t kLine = 64 / sizeof(float);
    return ((tile.key_count + kLine - 1) / kLine | 1) * kLine;
  }

 protected:
  const Model& model() const { return model_; }
  const ModelConfig& config() const { return model_.config; }
  /// Shapes the targets' tensors for an input of `rows` rows; what is to be multiplied.
  std::vector<Product> products(int64_t layer, int64_t rows, std::span<const Target> targets) const;
  /// Of experts: each of its own rows of the dispatched `in`.
  std::vector<RowsProduct> expert_products(int64_t layer, const Tensor& in, const Routing& routing,
                                           std::span<const Target> targets) const;
  const LayerWeights& weights(int64_t layer) const { return model_.layers[static_cast<size_t>(layer)]; }
  /// The weights behind an operation of a block.
  const LinearWeights& weights(int64_t layer, const LinearOp& op) const {
    return model_.layers[static_cast<size_t>(layer)].linear(op.module);
  }
  const NormWeights& weights(int64_t layer, const NormOp& op) const {
    return op.module == Module::final_norm ? model_.final_norm
                                           : model_.layers[static_cast<size_t>(layer)].norm(op.module);
  }
  /// One row y [op.width] ← norm of x, with these weights [op.weights()]. `without_eps`: RMSNorm as an L2
  /// norm.
  static void norm_row(const NormOp& op, const float* weight, const float* bias, bool without_eps,
                       const float* x, float* y);
  /// x [n] ← activation(x) of block `layer`.
  void activate_row(int64_t layer, const ActivateOp& op, float* x, int64_t n) const;
  /// out ← what is made of the embedding for the inputs of layers, before it is scaled.
  virtual void project_layers(const Tensor& embedded, Tensor& out) const;
  /// That of head g of the tile's group.
  float sink(const AttentionTile& tile, int64_t g) const {
    return weights(tile.layer)
        .vectors.at(Module::qk_product)[static_cast<size_t>(tile.kv_head * tile.op->group() + g)];
  }
  /// The probabilities of one row [n] of scores times `scale`, less what the head's sink takes.
  static void softmax_with_sink(float* row, int64_t n, float scale, float sink);
  /// x [n] ← ActivateOp's clamped SiLU or its sparsity, where it has them; true where nothing is left to do.
  static bool prepare_activation(const ActivateOp& op, float* x, int64_t n);
  /// gate [n] ← gate · up as the operation says.
  static void multiply_row(const MultiplyOp& op, const float* up, float* gate, int64_t n);
  /// Scores of one query that it sees → those that softmax takes as they are: scale and soft cap.
  static void cap_scores(const AttentionOp& op, float* row, int64_t n);
  /// The head's plain product, and what follows it: the logits' factor and soft cap.
  void head_product(const Tensor& normed, int64_t first, int64_t count, float* logits) const;
  void finish_logits(float* logits, int64_t n) const { model::finish_logits(config(), logits, n); }
  /// q · kᵀ over the first `keys` keys of the path.
  void score_keys(const AttentionTile& tile, const Tensor& q, int64_t keys) const;

 private:
  /// Tables of one rotary embedding, one for each class of lengths that has been asked for.
  class RotaryTables {
   public:
    RotaryTables(const Rotary& rotary, int64_t positions);
    /// Of a sequence of `length` tokens. Thread-safe.
    std::shared_ptr<const RotaryTable> at(int64_t length) const;

   private:
    Rotary rotary_;
    int64_t positions_;
    std::shared_ptr<const RotaryTable> usual_;
    mutable std::mutex mutex_;
    mutable std::map<int64_t, std::shared_ptr<const RotaryTable>> others_;
  };

  const Model& model_;
  std::map<int64_t, HadamardMatrix> hadamards_;  // by their order
  RotaryTables rotary_;
  std::optional<RotaryTables> local_rotary_;
};

/// The same with the linear maps' operands rounded to bfloat16 on the way into the CPU's dot products; sums,
/// attention and everything else stay float32.
class Bf16Arithmetic final : public FloatArithmetic {
 public:
  Bf16Arithmetic(const Model& model, int64_t max_positions, Bf16Kernel kernel);

  std::string name() const override { return std::string(kernel_->arithmetic); }
  void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const override;
  void expert_linear(int64_t layer, const Tensor& in, const Routing& routing,
                     std::span<const Target> targets) const override;
  void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 private:
  Bf16Kernel kernel_;
};

}  // namespace qeval::model
