// What the forward and the backward pass of a training block share. Included by block_*.cc and fold.cc only.
#pragma once

#include <cmath>
#include <cstring>
#include <map>

#include "model/hadamard.h"
#include "quant/methods/learn/block.h"

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

/// LayerNorm, or RMSNorm as an L2 norm, of n channels; x̂ before the weight, and what its derivative needs.
template <typename Real>
struct NormRow {
  Real mean = 0, factor = 0;  ///< x̂ = (x − mean) · factor

  NormRow(const model::NormOp& op, const Real* x, int64_t n) {
    Real sum = 0;
    if (op.kind == model::NormKind::layer) {
      for (int64_t i = 0; i < n; ++i) sum += x[i];
      mean = sum / static_cast<Real>(n);
      sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += (x[i] - mean) * (x[i] - mean);
      factor = 1 / std::sqrt(sum / static_cast<Real>(n) + static_cast<Real>(op.eps));
      return;
    }
    for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
    factor = std::sqrt(static_cast<Real>(n)) / std::max(std::sqrt(sum), static_cast<Real>(1e-12));
  }
};

/// The attention probabilities of a head, [tokens, tokens] each, row by row on the way; null: not wanted.
template <typename Real>
struct ScoreRows {
  Real* scores = nullptr;     ///< q·kᵀ before its quantizer
  Real* capped = nullptr;     ///< behind the soft cap, before its quantizer
  Real* raw = nullptr;        ///< probabilities before their quantizer
  Real* quantized = nullptr;  ///< and after; always wanted
};

/// One block with its parameters at one step; `parameters` is null in the float block.
template <typename Real>
class BlockPass {
 public:
  BlockPass(const Block<Real>& block, const BlockParameters<Real>* parameters, Workspace<Real>& workspace,
            int64_t tokens)
      : block_(block),
        program_(block.program),
        config_(*block.config),
        parameters_(parameters),
        work_(workspace),
        tokens_(tokens) {
    for (const ProgramStep& step : program_.steps) {
      const auto* op = step.as<model::HadamardOp>();
      if (op == nullptr || hadamards_.contains(op->block)) continue;
      const model::HadamardMatrix h = model::make_hadamard(op->block);
      hadamards_.emplace(op->block, Turning{h, model::transposed(h)});
    }
  }

  /// The grid of an activation point for the token at `position`; not enabled where it is left alone.
  LeafGrid<Real> grid(Module module, Slot slot, int64_t position) const {
    LeafGrid<Real> grid;
    const QuantSpec& spec = block_.spec(module, slot);
    const size_t index = BlockParameters<Real>::slot_index(module, slot);
    if (parameters_ == nullptr || !spec.enabled() || parameters_->scale[index].value.empty()) return grid;
    if (position == 0 && !block_.first.empty()) return block_.first[index];
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
  /// `transformed`, if given, receives what it was before it was rounded (precondition: it is transformed).
  const Real* quantized_weight(Module module, const WeightGrids<Real>& grids, Scratch<Real>& buffer,
                               Real* transformed = nullptr) const;

 protected:
  /// A norm's weight and bias as they multiply, for all rows of a pass.
  struct NormState {
    Scratch<Real> buffer;
    const Real* weight = nullptr;
    std::vector<Real> bias;  ///< empty: none
  };
  /// Finds the state of every norm of a part.
  void prepare_norms(const ProgramPart& part, const Kept<Real>& kept);

  /// Makes every tensor in memory known: the kept ones are those of `kept`; shared ones get their room, the
  /// block's output `output` (null: it is not wanted).
  void find_memory(Kept<Real>& kept, Real* output);

  /// Row r of a tensor; `scratch` has the part's tensors in Place::row.
  Real* row(size_t tensor, int64_t r, Real* scratch) const {
    const ProgramTensor& t = program_.tensors[tensor];
    return t.place == Place::row ? scratch + t.offset : memory_[tensor] + r * t.width;
  }

  /// Runs one row-wise step on row r.
  void run_row(const ProgramStep& step, int64_t r, Real* scratch) const;
  void norm_row(const model::NormOp& op, const Real* x, Real* y) const;
  void activate_row(const model::ActivateOp& op, int64_t position, const Real* x, Real* y) const;
  /// Rotates (or with inverse, rotates back) every head of a row, in place.
  void rotate_row(const model::RotateOp& op, Real* row, int64_t position, bool inverse) const;
  /// row ← row · H / √block, or with inverse back, block by block.
  void hadamard_row(const model::HadamardOp& op, Real* row, bool inverse) const;
  /// Whether GELU has its tanh form here.
  bool is_tanh(const model::ActivateOp& op) const {
    const bool quantized = parameters_ != nullptr && rounded_gelu_is_erf(config_);
    return op.kind == model::Activation::gelu_tanh && !quantized;
  }

  /// The probabilities of a head, from q and k [tokens, …] as the attention reads them.
  void probabilities(const model::AttentionOp& op, int64_t head, const Real* q, const Real* k,
                     const ScoreRows<Real>& rows) const;
  /// The first key that query i sees.
  static int64_t first_key(const model::AttentionOp& op, int64_t i) {
    return op.window == 0 ? 0 : std::max<int64_t>(0, i + 1 - op.window);
  }

  const Block<Real>& block_;
  const BlockProgram& program_;
  const model::ModelConfig& config_;
  const BlockParameters<Real>* parameters_;
  Workspace<Real>& work_;
  int64_t tokens_;
  std::vector<Real*> memory_;  ///< by tensor; null: a row at a time
  std::array<NormState, kBlockModules> norms_;
  struct Turning {
    model::HadamardMatrix there, back;
  };
  std::map<int64_t, Turning> hadamards_;  ///< by their order
};

}  // namespace qeval::quant
