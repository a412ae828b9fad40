// What the forward and the backward pass of a training block share. Included by block_*.cc only.
#pragma once

#include <cmath>
#include <cstring>

#include "quant/train/block.h"

namespace qeval::quant {

// Rows per task of the row-wise operations, and per partial sum of their backward passes: fixed, so that sums
// never depend on the threads.
inline constexpr int64_t kRowsPerTask = 16;

template <typename Body>
void for_row_blocks(int64_t rows, const Body& body) {
  parallel_tasks((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t t) {
    for (int64_t r = t * kRowsPerTask; r < std::min(rows, (t + 1) * kRowsPerTask); ++r) body(r);
  });
}

/// LayerNorm, or RMSNorm as an L2 norm; x̂ before the weight, and what its derivative needs.
template <typename Real>
struct NormRow {
  Real mean = 0, factor = 0;  ///< x̂ = (x − mean) · factor

  NormRow(const model::ModelConfig& config, const Real* x, int64_t n) {
    Real sum = 0;
    if (config.norm == model::NormKind::layer) {
      for (int64_t i = 0; i < n; ++i) sum += x[i];
      mean = sum / static_cast<Real>(n);
      sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += (x[i] - mean) * (x[i] - mean);
      factor = 1 / std::sqrt(sum / static_cast<Real>(n) + static_cast<Real>(config.norm_eps));
      return;
    }
    for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
    factor = std::sqrt(static_cast<Real>(n)) / std::max(std::sqrt(sum), static_cast<Real>(1e-12));
  }
};

/// Scratch of a thread for one row of the MLP between its projections.
template <typename Real>
struct GatedRow {
  Real *gate, *up, *sigmoid, *sigmoid_q, *activated, *activated_q, *product;
  GatedRow(Scratch<Real>& scratch, int64_t n) {
    Real* base = scratch.get(7 * n);
    for (Real** row : {&gate, &up, &sigmoid, &sigmoid_q, &activated, &activated_q, &product}) {
      *row = base;
      base += n;
    }
  }
};

/// One block with its parameters at one step; `parameters` is null in the float block.
template <typename Real>
class BlockPass {
 public:
  BlockPass(const Block<Real>& block, const BlockParameters<Real>* parameters, Workspace<Real>& workspace,
            int64_t tokens)
      : block_(block), config_(*block.config), parameters_(parameters), work_(workspace), tokens_(tokens) {}

  int64_t hidden() const { return config_.hidden_size; }
  int64_t inner() const { return config_.intermediate_size; }
  int64_t query_width() const { return config_.num_heads * config_.head_dim; }
  int64_t key_width() const { return config_.num_kv_heads * config_.head_dim; }
  int64_t group() const { return config_.num_heads / config_.num_kv_heads; }

  /// The grid of an activation point; not enabled where it is left alone.
  LeafGrid<Real> grid(Module module, Slot slot) const {
    LeafGrid<Real> grid;
    const QuantSpec& spec = block_.spec(module, slot);
    const size_t index = BlockParameters<Real>::slot_index(module, slot);
    if (parameters_ == nullptr || !spec.enabled() || parameters_->scale[index].value.empty()) return grid;
    const CodeLimits limits = code_limits(spec.bits, spec.symmetric);
    return {parameters_->scale[index].value[0], parameters_->offset[index].value[0],
            static_cast<Real>(limits.q_min), static_cast<Real>(limits.q_max), true};
  }

  static void quantize_row(const LeafGrid<Real>& grid, const Real* x, int64_t n, Real* y) {
    if (grid.enabled) {
      train_kernels<Real>().fake_quantize(x, n, grid, y);
    } else if (x != y) {
      std::memcpy(y, x, static_cast<size_t>(n) * sizeof(Real));
    }
  }
  void quantize(Module module, Slot slot, const Real* x, int64_t cols, Real* y) const {
    const LeafGrid<Real> g = grid(module, slot);
    for_row_blocks(tokens_, [&](int64_t r) { quantize_row(g, x + r * cols, cols, y + r * cols); });
  }

  const Real* let(LetPair pair) const {
    return parameters_ == nullptr ? nullptr : parameters_->let_values(pair);
  }
  /// The weight of a linear or norm as its transformations make it.
  TransformedWeight<Real> weight(Module module) const;
  Clipping<Real> clipping(Module module) const {
    const auto m = static_cast<size_t>(module);
    if (parameters_->upper[m].value.empty()) return {};
    return {parameters_->upper[m].value.data(), parameters_->lower[m].value.data()};
  }
  /// The transformed bias of a linear or norm into out; false where there is none.
  bool bias(Module module, std::vector<Real>& out) const;
  /// The quantized weight of a linear or norm: in `buffer`, or the stored one where nothing changes it.
  const Real* quantized_weight(Module module, const WeightGrids<Real>& grids, Scratch<Real>& buffer) const;

  /// out ← norm of quantized x, before its output's quantizer.
  void norm(Module module, const WeightGrids<Real>& grids, const Real* x, Real* out) const;
  /// Rotates (or with inverse, rotates back) every head of a row.
  void rotate_row(Real* row, int64_t width, int64_t position, bool inverse) const;
  /// From the projections' outputs to the operands of the attention products, quantized: q and k rotated, and
  /// v, into the workspace's q, k and v [tokens, width].
  void attention_operands(const Kept<Real>& kept);
  /// probabilities [tokens, tokens] of a head before and after their quantizer (`raw` may be null); scores
  /// before theirs in `scores` where not null.
  void probabilities(int64_t head, Real* scores, Real* raw, Real* quantized) const;
  /// The row between gate, up and the down projection; product not yet quantized.
  void gated_row(const Real* gate, const Real* up, const GatedRow<Real>& row) const;
  Real gelu(Real x) const;

  /// y ← x + quantized update.
  void add_residual(Module module, const Real* x, const Real* update, Real* y) const {
    const LeafGrid<Real> g = grid(module, Slot::output);
    const int64_t n = hidden();
    for_row_blocks(tokens_, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      Real* row = scratch.get(n);
      quantize_row(g, update + r * n, n, row);
      for (int64_t i = 0; i < n; ++i) y[r * n + i] = x[r * n + i] + row[i];
    });
  }

 protected:
  const Block<Real>& block_;
  const model::ModelConfig& config_;
  const BlockParameters<Real>* parameters_;
  Workspace<Real>& work_;
  int64_t tokens_;
};

}  // namespace qeval::quant
