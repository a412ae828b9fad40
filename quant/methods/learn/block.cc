#include "quant/methods/learn/block.h"

#include <algorithm>

#include "quant/methods/learn/block_pass.h"

namespace qeval::quant {
namespace {

template <typename Real>
class Forward : public BlockPass<Real> {
 public:
  using BlockPass<Real>::BlockPass;

  void run(const Real* x, Kept<Real>& kept, Real* y) {
    kept.tokens = this->tokens_;
    this->find_memory(kept, y);
    const int64_t n = this->config_.hidden_size;
    std::memcpy(this->memory_[0], x, static_cast<size_t>(this->tokens_ * n) * sizeof(Real));
    for (const ProgramPart& part : this->program_.parts) {
      if (part.row_wise) {
        run_rows(part, kept);
        continue;
      }
      for (size_t i = part.first; i < part.last; ++i) {
        const ProgramStep& step = this->program_.steps[i];
        if (const auto* linear = step.as<model::LinearOp>()) {
          multiply(*linear, step, kept);
        } else {
          attend(*step.as<model::AttentionOp>(), step);
        }
      }
    }
  }

 private:
  /// Finds the grids of a weight; `transformed`, if given, may receive w' (weight_grids).
  void find_grids(Module module, Kept<Real>& kept, Real* transformed = nullptr) {
    if (this->parameters_ == nullptr) return;
    kept.grids[static_cast<size_t>(module)] = weight_grids(
        this->weight(module), this->block_.spec(module, Slot::weight), this->clipping(module), transformed);
  }

  /// Finds the grids of a linear's weight, and the weight: transformed once, then rounded where it lies.
  const Real* linear_weight(Module module, Kept<Real>& kept) {
    const TransformedWeight<Real> w = this->weight(module);
    const QuantSpec& spec = this->block_.spec(module, Slot::weight);
    const WeightGrids<Real>& grids = kept.grids[static_cast<size_t>(module)];
    if (this->parameters_ == nullptr || !spec.enabled() || w.plain()) {
      find_grids(module, kept);
      return this->quantized_weight(module, grids, this->work_.weight);
    }
    Real* out = this->work_.weight.get(w.rows * w.cols);
    find_grids(module, kept, out);
    quantize_weight<Real>({.data = out, .rows = w.rows, .cols = w.cols}, spec, grids, out);
    return out;
  }

  void run_rows(const ProgramPart& part, Kept<Real>& kept) {
    for (size_t i = part.first; i < part.last; ++i) {
      if (const auto* norm = this->program_.steps[i].template as<model::NormOp>())
        find_grids(norm->module, kept);
    }
    this->prepare_norms(part, kept);
    for_row_blocks(this->tokens_, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      Real* rows = scratch.get(part.row_width);
      for (size_t i = part.first; i < part.last; ++i) this->run_row(this->program_.steps[i], r, rows);
    });
  }

  void multiply(const model::LinearOp& op, const ProgramStep& step, Kept<Real>& kept) {
    const Real* weight = linear_weight(op.module, kept);
    Real* result = this->memory_[step.out];
    product(operand<Real>(this->memory_[step.in[0]], this->tokens_, op.cols),
            operand(weight, op.rows, op.cols).transposed(), result, op.rows);
    std::vector<Real> bias;
    if (!this->bias(op.module, bias)) return;
    for_row_blocks(this->tokens_, [&](int64_t r) {
      for (int64_t i = 0; i < op.rows; ++i) result[r * op.rows + i] += bias[static_cast<size_t>(i)];
    });
  }

  void attend(const model::AttentionOp& op, const ProgramStep& step) {
    const int64_t t = this->tokens_, e = op.value_dim;
    const Real *q = this->memory_[step.in[0]], *k = this->memory_[step.in[1]], *v = this->memory_[step.in[2]];
    Real* mixed = this->memory_[step.out];
    parallel_tasks(op.heads, [&](int64_t head) {
      thread_local Scratch<Real> scratch;
      Real* p = scratch.get(t * t);
      this->probabilities(op, head, q, k, {.quantized = p});
      product_block(operand<Real>(p, t, t), operand(v + head / op.group() * e, t, e, op.kv_heads * e),
                    mixed + head * e, op.heads * e);
    });
  }
};

}  // namespace

RotaryTables::RotaryTables(const model::ModelConfig& config, int64_t positions)
    : usual_(config.rotary, positions) {
  if (config.local_rotary) local_.emplace(*config.local_rotary, positions);
}

namespace {

template <typename Real>
LeafGrid<Real> first_grid(const FirstToken& first, const Point& point) {
  const QuantSpec& spec = first.qcfg[point];
  if (!spec.enabled()) return {};  // of a prefix, which is computed in float
  const Grid grid = make_grid(spec, first.ranges[point].value());
  const CodeLimits limits = code_limits(spec.bits, spec.symmetric);
  return {static_cast<Real>(grid.scale), static_cast<Real>(grid.zero_point), static_cast<Real>(limits.q_min),
          static_cast<Real>(limits.q_max), true};
}

}  // namespace

template <typename Real>
Block<Real> make_block(const model::ModelConfig& config, const RotaryTables& rotary,
                       const BlockWeights<Real>& weights, const QuantConfig& qcfg, int64_t layer,
                       const std::optional<FirstToken>& first) {
  Block<Real> block{.config = &config,
                    .graph = &config.graph.block(layer),
                    .rotary = &rotary,
                    .weights = weights,
                    .specs = {}};
  if (first) block.first.resize(block.specs.size());
  PointSet rounded{};
  for (int64_t m = 0; m < kBlockModules; ++m) {
    for (int64_t s = 0; s < kSlots; ++s) {
      const auto module = static_cast<Module>(m);
      const auto slot = static_cast<Slot>(s);
      if (!has_point(config, {layer, module, slot})) continue;
      const size_t index = BlockParameters<Real>::slot_index(module, slot);
      block.specs[index] = qcfg[{layer, module, slot}];
      rounded[index] = block.specs[index].enabled();
      if (first && rounded[index] && slot != Slot::weight)
        block.first[index] = first_grid<Real>(*first, {layer, module, slot});
    }
  }
  block.program = make_program(config, layer, rounded);
  return block;
}

int64_t kept_per_token(const model::ModelConfig& config) {
  int64_t numbers = 0;
  for (const model::BlockGraph& block : config.graph.blocks) {
    numbers += config.hidden_size + block.attention().heads * block.attention().value_dim;
    for (const model::Operation& operation : block.operations) {
      if (const auto* linear = std::get_if<model::LinearOp>(&operation)) numbers += linear->rows;
    }
  }
  return numbers;
}

template <typename Real>
void block_forward(const Block<Real>& block, const BlockParameters<Real>& parameters, const Real* x,
                   int64_t tokens, Kept<Real>& kept, Workspace<Real>& workspace, Real* y) {
  Forward<Real>(block, &parameters, workspace, tokens).run(x, kept, y);
}

template <typename Real>
void float_block_forward(const Block<Real>& block, const Real* x, int64_t tokens, Workspace<Real>& workspace,
                         Real* y) {
  Kept<Real> kept;
  Forward<Real>(block, nullptr, workspace, tokens).run(x, kept, y);
}

#define QEVAL_INSTANTIATE(Real)                                                                              \
  template Block<Real> make_block(const model::ModelConfig&, const RotaryTables&, const BlockWeights<Real>&, \
                                  const QuantConfig&, int64_t, const std::optional<FirstToken>&);            \
  template void block_forward(const Block<Real>&, const BlockParameters<Real>&, const Real*, int64_t,        \
                              Kept<Real>&, Workspace<Real>&, Real*);                                         \
  template void float_block_forward(const Block<Real>&, const Real*, int64_t, Workspace<Real>&, Real*);
QEVAL_INSTANTIATE(float)
QEVAL_INSTANTIATE(double)
#undef QEVAL_INSTANTIATE

}  // namespace qeval::quant
