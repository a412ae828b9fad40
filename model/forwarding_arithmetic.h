#pragma once

#include "model/arithmetic.h"

namespace qeval::model {

/// Another arithmetic, which must outlive it: whoever looks at or changes a few of its operations overrides
/// those.
class ForwardingArithmetic : public Arithmetic {
 public:
  explicit ForwardingArithmetic(const Arithmetic& inner) : inner_(inner) {}

  std::string name() const override { return inner_.name(); }
  bool has_float_tensors() const override { return inner_.has_float_tensors(); }
  void embed(std::span<const int32_t> tokens, const RowPositions& rows, Tensor& residual) const override {
    inner_.embed(tokens, rows, residual);
  }
  void norm(int64_t layer, const NormOp& op, const Tensor& in, Tensor& out) const override {
    inner_.norm(layer, op, in, out);
  }
  void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const override {
    inner_.linear(layer, in, targets);
  }
  void rotate(int64_t layer, const RotateOp& op, const RowPositions& rows, Tensor& heads) const override {
    inner_.rotate(layer, op, rows, heads);
  }
  void split_latent(int64_t layer, const SplitLatentOp& op, const Tensor& latent, const Tensor& heads,
                    Tensor& k, Tensor& v) const override {
    inner_.split_latent(layer, op, latent, heads, k, v);
  }
  void route(int64_t layer, const RouteOp& op, const Tensor& logits, Routing& routing) const override {
    inner_.route(layer, op, logits, routing);
  }
  void dispatch(int64_t layer, const DispatchOp& op, const Tensor& in, const Routing& routing,
                Tensor& out) const override {
    inner_.dispatch(layer, op, in, routing, out);
  }
  void expert_linear(int64_t layer, const Tensor& in, const Routing& routing,
                     std::span<const Target> targets) const override {
    inner_.expert_linear(layer, in, routing, targets);
  }
  void mix_experts(int64_t layer, const MixExpertsOp& op, const ExpertResults& results,
                   const Routing& routing, Tensor& out) const override {
    inner_.mix_experts(layer, op, results, routing, out);
  }
  void gate(int64_t layer, const GateOp& op, const Tensor& gate, Tensor& value) const override {
    inner_.gate(layer, op, gate, value);
  }
  void scale(int64_t layer, const ScaleOp& op, const Tensor& in, Tensor& out) const override {
    inner_.scale(layer, op, in, out);
  }
  void clamp(int64_t layer, const ClampOp& op, Tensor& value) const override {
    inner_.clamp(layer, op, value);
  }
  void convolve(int64_t layer, const ConvolveOp& op, std::span<const StateSegment> segments,
                Tensor& value) const override {
    inner_.convolve(layer, op, segments, value);
  }
  void delta_rule(int64_t layer, const DeltaRuleOp& op, const MixerInputs& in,
                  std::span<const StateSegment> segments, Tensor& out) const override {
    inner_.delta_rule(layer, op, in, segments, out);
  }
  void state_space(int64_t layer, const StateSpaceOp& op, const MixerInputs& in,
                   std::span<const StateSegment> segments, Tensor& out) const override {
    inner_.state_space(layer, op, in, segments, out);
  }
  int64_t state_offset(int64_t layer, int64_t tokens) const override {
    return inner_.state_offset(layer, tokens);
  }
  void altup(int64_t layer, const AltupOp& op, const Tensor& predicted, const Tensor& update, Tensor& active,
             Tensor& others) const override {
    inner_.altup(layer, op, predicted, update, active, others);
  }
  void embed_layers(std::span<const int32_t> tokens, const Tensor& embedded, Tensor& out) const override {
    inner_.embed_layers(tokens, embedded, out);
  }
  bool lends_kv(int64_t layer) const override { return inner_.lends_kv(layer); }
  int64_t layers() const override { return inner_.layers(); }
  int64_t kv_bytes(int64_t layer, int64_t tokens) const override { return inner_.kv_bytes(layer, tokens); }
  void store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                const KvBlock& block, int64_t at) const override {
    inner_.store_kv(layer, k, v, first_row, count, block, at);
  }
  bool wants_all_keys() const override { return inner_.wants_all_keys(); }
  void scores(const AttentionTile& tile, const Tensor& q) const override { inner_.scores(tile, q); }
  void softmax(const AttentionTile& tile) const override { inner_.softmax(tile); }
  void mix(const AttentionTile& tile, Tensor& out) const override { inner_.mix(tile, out); }
  void shape_mixed(const AttentionOp& op, int64_t rows, Tensor& out) const override {
    inner_.shape_mixed(op, rows, out);
  }
  void add(int64_t layer, const AddOp& op, const Tensor& update, Tensor& residual) const override {
    inner_.add(layer, op, update, residual);
  }
  void activate(int64_t layer, const ActivateOp& op, Tensor& gate) const override {
    inner_.activate(layer, op, gate);
  }
  void multiply(int64_t layer, const MultiplyOp& op, const Tensor& up, Tensor& gate) const override {
    inner_.multiply(layer, op, up, gate);
  }
  void hadamard(int64_t layer, const HadamardOp& op, Tensor& value) const override {
    inner_.hadamard(layer, op, value);
  }
  void gather(const Tensor& tensor, std::span<const int64_t> rows, Tensor& out) const override {
    inner_.gather(tensor, rows, out);
  }
  void finish(const Tensor& residual, Tensor& out) const override { inner_.finish(residual, out); }
  void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const override {
    inner_.logits(normed, first, count, logits);
  }

 protected:
  const Arithmetic& inner() const { return inner_; }

 private:
  const Arithmetic& inner_;
};

}  // namespace qeval::model
