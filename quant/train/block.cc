#include "quant/train/block.h"

#include <algorithm>

#include "quant/train/block_pass.h"

namespace qeval::quant {
namespace {

template <typename Real>
class Forward : public BlockPass<Real> {
 public:
  using BlockPass<Real>::BlockPass;

  void run(const Real* x, Kept<Real>& kept, Real* y) {
    const int64_t n = this->hidden();
    kept.tokens = this->tokens_;
    std::memcpy(kept.x.get(this->tokens_ * n), x, static_cast<size_t>(this->tokens_ * n) * sizeof(Real));
    Real* h = this->work_.normed.get(this->tokens_ * n);
    normalize(Module::input_norm, kept, kept.x.data(), h);
    linear(Module::q, kept, h, kept.q);
    linear(Module::k, kept, h, kept.k);
    linear(Module::v, kept, h, kept.v);
    attend(kept);
    linear(Module::o, kept, mixed_quantized(kept), kept.o);
    Real* middle = this->work_.middle.get(this->tokens_ * n);
    this->add_residual(Module::o, kept.x.data(), kept.o.data(), middle);
    normalize(Module::post_attention_norm, kept, middle, h);
    linear(Module::gate, kept, h, kept.gate);
    linear(Module::up, kept, h, kept.up);
    linear(Module::down, kept, gated(kept), kept.down);
    this->add_residual(Module::down, middle, kept.down.data(), y);
  }

 private:
  void find_grids(Module module, Kept<Real>& kept) {
    if (this->parameters_ == nullptr) return;
    kept.grids[static_cast<size_t>(module)] =
        weight_grids(this->weight(module), this->block_.spec(module, Slot::weight), this->clipping(module));
  }

  void normalize(Module module, Kept<Real>& kept, const Real* x, Real* out) {
    find_grids(module, kept);
    this->norm(module, kept.grids[static_cast<size_t>(module)], x, out);
    this->quantize(module, Slot::output, out, this->hidden(), out);
  }

  void linear(Module module, Kept<Real>& kept, const Real* in, Scratch<Real>& out) {
    const auto& w = this->block_.weights.projection(module);
    find_grids(module, kept);
    const Real* weight =
        this->quantized_weight(module, kept.grids[static_cast<size_t>(module)], this->work_.weight);
    Real* result = out.get(this->tokens_ * w.rows);
    product(operand(in, this->tokens_, w.cols), operand(weight, w.rows, w.cols).transposed(), result, w.rows);
    std::vector<Real> bias;
    if (!this->bias(module, bias)) return;
    for_row_blocks(this->tokens_, [&](int64_t r) {
      for (int64_t i = 0; i < w.rows; ++i) result[r * w.rows + i] += bias[static_cast<size_t>(i)];
    });
  }

  void attend(Kept<Real>& kept) {
    this->attention_operands(kept);
    const int64_t d = this->config_.head_dim;
    const int64_t t = this->tokens_;
    Real* mixed = kept.mixed.get(t * this->query_width());
    parallel_tasks(this->config_.num_heads, [&](int64_t head) {
      thread_local Scratch<Real> scratch;
      Real* p = scratch.get(t * t);
      this->probabilities(head, nullptr, nullptr, p);
      const Real* v = this->work_.v.data() + head / this->group() * d;
      product_block(operand<Real>(p, t, t), operand(v, t, d, this->key_width()), mixed + head * d,
                    this->query_width());
    });
  }

  const Real* mixed_quantized(const Kept<Real>& kept) {
    // q's room: the attention products are done with it.
    Real* out = this->work_.q.get(this->tokens_ * this->query_width());
    this->quantize(Module::pv_product, Slot::output, kept.mixed.data(), this->query_width(), out);
    return out;
  }

  const Real* gated(const Kept<Real>& kept) {
    const int64_t n = this->inner();
    Real* out = this->work_.product.get(this->tokens_ * n);
    const LeafGrid<Real> g = this->grid(Module::down, Slot::input);
    for_row_blocks(this->tokens_, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      const GatedRow<Real> row(scratch, n);
      this->gated_row(kept.gate.data() + r * n, kept.up.data() + r * n, row);
      this->quantize_row(g, row.product, n, out + r * n);
    });
    return out;
  }
};

}  // namespace

template <typename Real>
Block<Real> make_block(const model::ModelConfig& config, const model::RotaryTable& rotary,
                       const BlockWeights<Real>& weights, const QuantConfig& qcfg, int64_t layer) {
  Block<Real> block{.config = &config, .rotary = &rotary, .weights = weights, .specs = {}};
  for (int64_t m = 0; m < kBlockModules; ++m) {
    for (int64_t s = 0; s < kSlots; ++s) {
      const auto module = static_cast<Module>(m);
      const auto slot = static_cast<Slot>(s);
      if (has_point(config, {layer, module, slot}))
        block.specs[BlockParameters<Real>::slot_index(module, slot)] = qcfg[{layer, module, slot}];
    }
  }
  return block;
}

int64_t kept_per_token(const model::ModelConfig& config) {
  return 3 * config.hidden_size + 2 * config.head_dim * (config.num_heads + config.num_kv_heads) +
         2 * config.intermediate_size;
}

template <typename Real>
TransformedWeight<Real> BlockPass<Real>::weight(Module module) const {
  TransformedWeight<Real> w;
  if (is_norm(module)) {
    w.data = block_.weights.norm(module).weight->data();
    w.rows = 1;
    w.cols = hidden();
    w.column_divisor = let(module == Module::input_norm ? LetPair::norm_qkv : LetPair::norm_gate_up);
    return w;
  }
  const auto& linear = block_.weights.projection(module);
  w.data = linear.weight;
  w.rows = linear.rows;
  w.cols = linear.cols;
  switch (module) {
    case Module::q:
    case Module::k:
    case Module::v:
      w.column_multiplier = let(LetPair::norm_qkv);
      break;
    case Module::o:
      w.column_multiplier = let(LetPair::v_o);
      break;
    case Module::down:
      w.column_multiplier = let(LetPair::up_down);
      break;
    default:
      w.column_multiplier = let(LetPair::norm_gate_up);
  }
  if (module == Module::q) w.row_divisor = let(LetPair::q_k);
  if (module == Module::k) w.row_multiplier = let(LetPair::q_k);
  if (module == Module::v) w.row_divisor = let(LetPair::v_o);
  if (module == Module::up) w.row_divisor = let(LetPair::up_down);
  return w;
}

template <typename Real>
bool BlockPass<Real>::bias(Module module, std::vector<Real>& out) const {
  out = is_norm(module) ? *block_.weights.norm(module).bias : *block_.weights.projection(module).bias;
  if (out.empty()) return false;
  const TransformedWeight<Real> w = weight(module);
  const Real* divisor = is_norm(module) ? w.column_divisor : w.row_divisor;
  for (size_t i = 0; i < out.size(); ++i) {
    if (divisor != nullptr) out[i] /= divisor[i];
    if (w.row_multiplier != nullptr) out[i] *= w.row_multiplier[i];
  }
  return true;
}

template <typename Real>
const Real* BlockPass<Real>::quantized_weight(Module module, const WeightGrids<Real>& grids,
                                              Scratch<Real>& buffer) const {
  const TransformedWeight<Real> w = weight(module);
  if (parameters_ == nullptr) return w.data;
  Real* out = buffer.get(w.rows * w.cols);
  quantize_weight(w, block_.spec(module, Slot::weight), grids, out);
  return out;
}

template <typename Real>
void BlockPass<Real>::norm(Module module, const WeightGrids<Real>& grids, const Real* x, Real* out) const {
  const int64_t n = hidden();
  Scratch<Real> buffer;
  const Real* w = quantized_weight(module, grids, buffer);
  std::vector<Real> b;
  const bool biased = bias(module, b);
  const LeafGrid<Real> g = grid(module, Slot::input);
  for_row_blocks(tokens_, [&](int64_t r) {
    Real* y = out + r * n;
    quantize_row(g, x + r * n, n, y);
    const NormRow<Real> row(config_, y, n);
    for (int64_t i = 0; i < n; ++i) {
      y[i] = (y[i] - row.mean) * row.factor * w[i];
      if (biased) y[i] += b[static_cast<size_t>(i)];
    }
  });
}

template <typename Real>
void BlockPass<Real>::rotate_row(Real* row, int64_t width, int64_t position, bool inverse) const {
  const int64_t half = block_.rotary->half();
  const float* cosines = block_.rotary->cosines(position);
  const float* sines = block_.rotary->sines(position);
  for (int64_t h = 0; h < width; h += config_.head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const auto c = static_cast<Real>(cosines[i]);
      const auto s = static_cast<Real>(inverse ? -sines[i] : sines[i]);
      const Real a = row[h + i];
      const Real b = row[h + half + i];
      row[h + i] = a * c - b * s;
      row[h + half + i] = b * c + a * s;
    }
  }
}

template <typename Real>
void BlockPass<Real>::attention_operands(const Kept<Real>& kept) {
  struct Source {
    Module module;
    const Real* from;
    Real* to;
    int64_t width;
    LeafGrid<Real> second;
    bool rotated;
  };
  const std::array sources{Source{Module::q, kept.q.data(), work_.q.get(tokens_ * query_width()),
                                  query_width(), grid(Module::qk_product, Slot::input), true},
                           Source{Module::k, kept.k.data(), work_.k.get(tokens_ * key_width()), key_width(),
                                  grid(Module::qk_product, Slot::input2), true},
                           Source{Module::v, kept.v.data(), work_.v.get(tokens_ * key_width()), key_width(),
                                  grid(Module::pv_product, Slot::input2), false}};
  for (const Source& source : sources) {
    const LeafGrid<Real> first = grid(source.module, Slot::output);
    for_row_blocks(tokens_, [&](int64_t r) {
      Real* row = source.to + r * source.width;
      quantize_row(first, source.from + r * source.width, source.width, row);
      if (source.rotated) rotate_row(row, source.width, r, false);
      quantize_row(source.second, row, source.width, row);
    });
  }
}

template <typename Real>
void BlockPass<Real>::probabilities(int64_t head, Real* scores, Real* raw, Real* quantized) const {
  const int64_t d = config_.head_dim;
  const int64_t t = tokens_;
  const Real* q = work_.q.data() + head * d;
  const Real* k = work_.k.data() + head / group() * d;
  product_block(operand(q, t, d, query_width()), operand(k, t, d, key_width()).transposed(), quantized, t);
  if (scores != nullptr) std::memcpy(scores, quantized, static_cast<size_t>(t * t) * sizeof(Real));
  const LeafGrid<Real> score_grid = grid(Module::qk_product, Slot::output);
  const LeafGrid<Real> p_grid = grid(Module::pv_product, Slot::input);
  const Real scale = 1 / std::sqrt(static_cast<Real>(d));
  for (int64_t i = 0; i < t; ++i) {
    // The mask comes after the scores' quantizer: what it hides need not be quantized, but its zero
    // probabilities are, and an offset below 0 makes something of them.
    Real* row = quantized + i * t;
    quantize_row(score_grid, row, i + 1, row);
    train_kernels<Real>().softmax(row, i + 1, scale);
    std::fill(row + i + 1, row + t, Real{0});
    if (raw != nullptr) std::memcpy(raw + i * t, row, static_cast<size_t>(t) * sizeof(Real));
    quantize_row(p_grid, row, t, row);
  }
}

template <typename Real>
Real BlockPass<Real>::gelu(Real x) const {
  // The quantized model computes the erf form whatever the configuration says.
  if (parameters_ == nullptr && config_.activation == model::Activation::gelu_tanh) {
    const Real u = static_cast<Real>(0.7978845608028654) * (x + static_cast<Real>(0.044715) * x * x * x);
    return x / (1 + std::exp(-2 * u));
  }
  return x * static_cast<Real>(0.5) * (1 + std::erf(x * static_cast<Real>(0.7071067811865475)));
}

template <typename Real>
void BlockPass<Real>::gated_row(const Real* gate, const Real* up, const GatedRow<Real>& row) const {
  const int64_t n = inner();
  quantize_row(grid(Module::gate, Slot::output), gate, n, row.gate);
  quantize_row(grid(Module::up, Slot::output), up, n, row.up);
  if (config_.activation == model::Activation::silu) {
    train_kernels<Real>().sigmoid(row.gate, n, row.sigmoid);
    quantize_row(grid(Module::activation, Slot::input2), row.sigmoid, n, row.sigmoid_q);
    for (int64_t i = 0; i < n; ++i) row.activated[i] = row.gate[i] * row.sigmoid_q[i];
  } else {
    for (int64_t i = 0; i < n; ++i) row.activated[i] = gelu(row.gate[i]);
  }
  quantize_row(grid(Module::activation, Slot::output), row.activated, n, row.activated_q);
  for (int64_t i = 0; i < n; ++i) row.product[i] = row.activated_q[i] * row.up[i];
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

#define QEVAL_INSTANTIATE(Real)                                                                       \
  template class BlockPass<Real>;                                                                     \
  template Block<Real> make_block(const model::ModelConfig&, const model::RotaryTable&,               \
                                  const BlockWeights<Real>&, const QuantConfig&, int64_t);            \
  template void block_forward(const Block<Real>&, const BlockParameters<Real>&, const Real*, int64_t, \
                              Kept<Real>&, Workspace<Real>&, Real*);                                  \
  template void float_block_forward(const Block<Real>&, const Real*, int64_t, Workspace<Real>&, Real*);
QEVAL_INSTANTIATE(float)
QEVAL_INSTANTIATE(double)
#undef QEVAL_INSTANTIATE

}  // namespace qeval::quant
