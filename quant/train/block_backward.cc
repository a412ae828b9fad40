#include <algorithm>

#include "quant/train/block_pass.h"

namespace qeval::quant {
namespace {

template <typename Real>
class Backward : public BlockPass<Real> {
 public:
  Backward(const Block<Real>& block, BlockParameters<Real>& parameters, const Kept<Real>& kept,
           Workspace<Real>& workspace)
      : BlockPass<Real>(block, &parameters, workspace, kept.tokens), learned_(parameters), kept_(kept) {}

  void run(Real* gradient) {
    const int64_t n = this->hidden();
    Workspace<Real>& work = this->work_;
    Real* middle = work.middle.get(this->tokens_ * n);
    Real* update = work.update.get(this->tokens_ * n);
    Real* d_normed = work.gradient_normed.get(this->tokens_ * n);
    this->add_residual(Module::o, kept_.x.data(), kept_.o.data(), middle);

    std::copy(gradient, gradient + this->tokens_ * n, update);
    quantizer(Module::down, Slot::output, kept_.down.data(), n, update);
    mlp(middle, update, d_normed);
    norm(Module::post_attention_norm, middle, d_normed, gradient);

    std::copy(gradient, gradient + this->tokens_ * n, update);
    quantizer(Module::o, Slot::output, kept_.o.data(), n, update);
    attention(update, d_normed);
    norm(Module::input_norm, kept_.x.data(), d_normed, gradient);
  }

 private:
  using Sum = GridGradient<Real>;

  /// Adds rows' or heads' shares of a grid's gradient, in order.
  void add_grid(Module module, Slot slot, const std::vector<Sum>& sums) {
    const size_t index = BlockParameters<Real>::slot_index(module, slot);
    if (learned_.scale[index].value.empty()) return;
    double scale = 0;
    double offset = 0;
    for (const Sum& s : sums) {
      scale += static_cast<double>(s.scale);
      offset += static_cast<double>(s.offset);
    }
    learned_.scale[index].gradient[0] += static_cast<Real>(scale);
    learned_.offset[index].gradient[0] += static_cast<Real>(offset);
  }

  static void quantizer_row(const LeafGrid<Real>& grid, const Real* x, int64_t n, Real* gradient, Sum& sum) {
    if (!grid.enabled) return;
    const Sum row = train_kernels<Real>().fake_quantize_backward(x, n, grid, gradient);
    sum.scale += row.scale;
    sum.offset += row.offset;
  }

  std::vector<Sum> row_sums() const { return std::vector<Sum>(static_cast<size_t>(this->tokens_)); }

  void quantizer(Module module, Slot slot, const Real* x, int64_t cols, Real* gradient) {
    const LeafGrid<Real> grid = this->grid(module, slot);
    if (!grid.enabled) return;
    std::vector<Sum> sums = row_sums();
    for_row_blocks(this->tokens_, [&](int64_t r) {
      quantizer_row(grid, x + r * cols, cols, gradient + r * cols, sums[static_cast<size_t>(r)]);
    });
    add_grid(module, slot, sums);
  }

  /// Where the gradients of a weight's transformation and clipping go.
  WeightGradients<Real> weight_gradients(Module module) {
    const auto m = static_cast<size_t>(module);
    WeightGradients<Real> out;
    if (!learned_.upper[m].value.empty()) {
      out.upper = learned_.upper[m].gradient.data();
      out.lower = learned_.lower[m].gradient.data();
    }
    switch (module) {
      case Module::input_norm:
        out.column_divisor = learned_.let_gradient(LetPair::norm_qkv);
        break;
      case Module::post_attention_norm:
        out.column_divisor = learned_.let_gradient(LetPair::norm_gate_up);
        break;
      case Module::q:
        out.column_multiplier = learned_.let_gradient(LetPair::norm_qkv);
        out.row_divisor = learned_.let_gradient(LetPair::q_k);
        break;
      case Module::k:
        out.column_multiplier = learned_.let_gradient(LetPair::norm_qkv);
        out.row_multiplier = learned_.let_gradient(LetPair::q_k);
        break;
      case Module::v:
        out.column_multiplier = learned_.let_gradient(LetPair::norm_qkv);
        out.row_divisor = learned_.let_gradient(LetPair::v_o);
        break;
      case Module::o:
        out.column_multiplier = learned_.let_gradient(LetPair::v_o);
        break;
      case Module::gate:
        out.column_multiplier = learned_.let_gradient(LetPair::norm_gate_up);
        break;
      case Module::up:
        out.column_multiplier = learned_.let_gradient(LetPair::norm_gate_up);
        out.row_divisor = learned_.let_gradient(LetPair::up_down);
        break;
      default:
        out.column_multiplier = learned_.let_gradient(LetPair::up_down);
    }
    return out;
  }

  /// b' = b / divisor · multiplier; `sums`: dL/db'.
  void bias_backward(Module module, const std::vector<Real>& sums) {
    std::vector<Real> b;
    if (!this->bias(module, b)) return;
    const TransformedWeight<Real> w = this->weight(module);
    const WeightGradients<Real> out = weight_gradients(module);
    const auto add = [&](const Real* factor, Real sign, Real* gradient) {
      if (gradient == nullptr) return;
      for (size_t i = 0; i < b.size(); ++i) gradient[i] += sign * sums[i] * b[i] / factor[i];
    };
    if (is_norm(module)) {
      add(w.column_divisor, -1, out.column_divisor);
    } else {
      add(w.row_divisor, -1, out.row_divisor);
      add(w.row_multiplier, 1, out.row_multiplier);
    }
  }

  /// Σ over rows of a [tokens, cols].
  std::vector<Real> column_sums(const Real* a, int64_t cols) const {
    std::vector<Real> sums(static_cast<size_t>(cols));
    for (int64_t r = 0; r < this->tokens_; ++r) {
      for (int64_t i = 0; i < cols; ++i) sums[static_cast<size_t>(i)] += a[r * cols + i];
    }
    return sums;
  }

  /// d_in (+)= d_out · W, and the gradients of what makes W from the stored weight.
  void linear(Module module, const Real* in, const Real* d_out, Real* d_in, bool accumulate) {
    const auto& stored = this->block_.weights.projection(module);
    const WeightGrids<Real>& grids = kept_.grids[static_cast<size_t>(module)];
    const Real* w = this->quantized_weight(module, grids, this->work_.weight);
    product(operand(d_out, this->tokens_, stored.rows), operand(w, stored.rows, stored.cols), d_in,
            stored.cols, accumulate);
    Real* d_weight = this->work_.weight_gradient.get(stored.rows * stored.cols);
    product(operand(d_out, this->tokens_, stored.rows).transposed(), operand(in, this->tokens_, stored.cols),
            d_weight, stored.cols);
    quantize_weight_backward(this->weight(module), this->block_.spec(module, Slot::weight),
                             this->clipping(module), grids, d_weight, weight_gradients(module));
    if (!stored.bias->empty()) bias_backward(module, column_sums(d_out, stored.rows));
  }

  /// The norm's output, quantized, as the projections read it; the same before the quantizer in `raw`.
  const Real* normed(Module module, const Real* x, Real* raw) {
    BlockPass<Real>::norm(module, kept_.grids[static_cast<size_t>(module)], x, raw);
    Real* out = this->work_.normed.get(this->tokens_ * this->hidden());
    this->quantize(module, Slot::output, raw, this->hidden(), out);
    return out;
  }

  /// gradient += dL/dx of the norm's input x, given d_out, that of its quantized output (overwritten).
  void norm(Module module, const Real* x, Real* d_out, Real* gradient) {
    const int64_t n = this->hidden();
    const WeightGrids<Real>& grids = kept_.grids[static_cast<size_t>(module)];
    Real* raw = this->work_.update.get(this->tokens_ * n);
    BlockPass<Real>::norm(module, grids, x, raw);
    quantizer(module, Slot::output, raw, n, d_out);
    Scratch<Real> buffer;
    const Real* w = this->quantized_weight(module, grids, buffer);
    const LeafGrid<Real> grid = this->grid(module, Slot::input);
    std::vector<Sum> sums = row_sums();
    const int64_t parts = (this->tokens_ + kRowsPerTask - 1) / kRowsPerTask;
    std::vector<std::vector<Real>> weight_parts(static_cast<size_t>(parts));
    for_row_blocks(this->tokens_, [&](int64_t r) {
      std::vector<Real>& part = weight_parts[static_cast<size_t>(r / kRowsPerTask)];
      part.resize(static_cast<size_t>(n));
      thread_local Scratch<Real> scratch;
      Real* xq = scratch.get(2 * n);
      Real* dx = xq + n;
      this->quantize_row(grid, x + r * n, n, xq);
      norm_row(xq, w, d_out + r * n, part.data(), dx);
      quantizer_row(grid, x + r * n, n, dx, sums[static_cast<size_t>(r)]);
      for (int64_t i = 0; i < n; ++i) gradient[r * n + i] += dx[i];
    });
    add_grid(module, Slot::input, sums);
    std::vector<Real> d_weight(static_cast<size_t>(n));
    for (const std::vector<Real>& part : weight_parts) {
      for (size_t i = 0; i < part.size(); ++i) d_weight[i] += part[i];
    }
    quantize_weight_backward(this->weight(module), this->block_.spec(module, Slot::weight),
                             this->clipping(module), grids, d_weight.data(), weight_gradients(module));
    if (!this->block_.weights.norm(module).bias->empty()) bias_backward(module, column_sums(d_out, n));
  }

  /// One row of y = (x − mean)·factor·w: dx, and d_weight += dy·x̂.
  void norm_row(const Real* x, const Real* w, const Real* dy, Real* d_weight, Real* dx) const {
    const int64_t n = this->hidden();
    const NormRow<Real> row(this->config_, x, n);
    Real sum = 0;      // Σ g, g = dy · w
    Real product = 0;  // Σ g · x̂
    for (int64_t i = 0; i < n; ++i) {
      const Real normalized = (x[i] - row.mean) * row.factor;
      const Real g = dy[i] * w[i];
      d_weight[i] += dy[i] * normalized;
      sum += g;
      product += g * normalized;
    }
    const bool centered = this->config_.norm == model::NormKind::layer;
    const Real mean = centered ? sum / static_cast<Real>(n) : Real{0};
    const Real along = product / static_cast<Real>(n);
    for (int64_t i = 0; i < n; ++i) {
      const Real normalized = (x[i] - row.mean) * row.factor;
      dx[i] = row.factor * (dy[i] * w[i] - mean - normalized * along);
    }
  }

  /// d_normed ← gradient of the quantized norm output, given that of the down projection's raw output.
  void mlp(const Real* middle, const Real* d_down, Real* d_normed) {
    const int64_t n = this->inner();
    const int64_t t = this->tokens_;
    Workspace<Real>& work = this->work_;
    Real* in = work.product.get(t * n);
    const LeafGrid<Real> product_grid = this->grid(Module::down, Slot::input);
    for_row_blocks(t, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      const GatedRow<Real> row(scratch, n);
      this->gated_row(kept_.gate.data() + r * n, kept_.up.data() + r * n, row);
      this->quantize_row(product_grid, row.product, n, in + r * n);
    });
    Real* d_product = work.gradient_middle.get(t * n);
    linear(Module::down, in, d_down, d_product, false);
    Real* d_gate = work.gradient_gate.get(t * n);
    Real* d_up = work.gradient_up.get(t * n);
    gate_backward(d_product, d_gate, d_up);
    // The product's room takes the norm's raw output, which nobody reads here.
    const Real* h = normed(Module::post_attention_norm, middle, work.product.get(t * this->hidden()));
    linear(Module::gate, h, d_gate, d_normed, false);
    linear(Module::up, h, d_up, d_normed, true);
  }

  void gate_backward(Real* d_product, Real* d_gate, Real* d_up) {
    const int64_t n = this->inner();
    const bool silu = this->config_.activation == model::Activation::silu;
    struct Stage {
      Module module;
      Slot slot;
      LeafGrid<Real> grid;
      std::vector<Sum> sums;
    };
    const auto stage = [&](Module module, Slot slot) {
      return Stage{module, slot, this->grid(module, slot), row_sums()};
    };
    Stage product = stage(Module::down, Slot::input);
    Stage activated = stage(Module::activation, Slot::output);
    Stage sigmoid = stage(Module::activation, Slot::input2);
    Stage gate = stage(Module::gate, Slot::output);
    Stage up = stage(Module::up, Slot::output);
    for_row_blocks(this->tokens_, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      thread_local Scratch<Real> gradients;
      const GatedRow<Real> row(scratch, n);
      const auto index = static_cast<size_t>(r);
      const Real* raw_gate = kept_.gate.data() + r * n;
      const Real* raw_up = kept_.up.data() + r * n;
      this->gated_row(raw_gate, raw_up, row);
      Real* d = d_product + r * n;
      Real* dg = d_gate + r * n;
      Real* du = d_up + r * n;
      Real* da = gradients.get(n);
      quantizer_row(product.grid, row.product, n, d, product.sums[index]);
      for (int64_t i = 0; i < n; ++i) {
        du[i] = d[i] * row.activated_q[i];
        da[i] = d[i] * row.up[i];
      }
      quantizer_row(activated.grid, row.activated, n, da, activated.sums[index]);
      if (silu) {
        for (int64_t i = 0; i < n; ++i) {
          dg[i] = da[i] * row.sigmoid_q[i];
          da[i] *= row.gate[i];
        }
        quantizer_row(sigmoid.grid, row.sigmoid, n, da, sigmoid.sums[index]);
        for (int64_t i = 0; i < n; ++i) dg[i] += da[i] * row.sigmoid[i] * (1 - row.sigmoid[i]);
      } else {
        for (int64_t i = 0; i < n; ++i) dg[i] = da[i] * gelu_derivative(row.gate[i]);
      }
      quantizer_row(gate.grid, raw_gate, n, dg, gate.sums[index]);
      quantizer_row(up.grid, raw_up, n, du, up.sums[index]);
    });
    for (const Stage* s : {&product, &activated, &sigmoid, &gate, &up}) add_grid(s->module, s->slot, s->sums);
  }

  /// d/dx of x·Φ(x) = Φ(x) + x·φ(x).
  static Real gelu_derivative(Real x) {
    const Real distribution =
        static_cast<Real>(0.5) * (1 + std::erf(x * static_cast<Real>(0.7071067811865475)));
    const Real density = static_cast<Real>(0.3989422804014327) * std::exp(-x * x / 2);
    return distribution + x * density;
  }

  /// d_normed ← gradient of the quantized norm output, given that of the output projection's raw output.
  void attention(const Real* d_o, Real* d_normed) {
    const int64_t width = this->query_width();
    const int64_t t = this->tokens_;
    Workspace<Real>& work = this->work_;
    Real* in = work.q.get(t * width);
    this->quantize(Module::pv_product, Slot::output, kept_.mixed.data(), width, in);
    Real* d_mixed = work.gradient_mixed.get(t * width);
    linear(Module::o, in, d_o, d_mixed, false);
    quantizer(Module::pv_product, Slot::output, kept_.mixed.data(), width, d_mixed);

    this->attention_operands(kept_);
    heads(d_mixed);
    operands_backward(Module::q, Module::qk_product, Slot::input, kept_.q.data(), width,
                      work.gradient_q.data());
    operands_backward(Module::k, Module::qk_product, Slot::input2, kept_.k.data(), this->key_width(),
                      work.gradient_k.data());
    operands_backward(Module::v, Module::pv_product, Slot::input2, kept_.v.data(), this->key_width(),
                      work.gradient_v.data());

    const Real* h = normed(Module::input_norm, kept_.x.data(), work.product.get(t * this->hidden()));
    linear(Module::q, h, work.gradient_q.data(), d_normed, false);
    linear(Module::k, h, work.gradient_k.data(), d_normed, true);
    linear(Module::v, h, work.gradient_v.data(), d_normed, true);
  }

  /// Through both attention products: the gradients of the quantized q, k and v.
  void heads(const Real* d_mixed) {
    const int64_t d = this->config_.head_dim;
    const int64_t t = this->tokens_;
    const int64_t width = this->query_width();
    const int64_t heads = this->config_.num_heads;
    Workspace<Real>& work = this->work_;
    Real* d_q = work.gradient_q.get(t * width);
    Real* head_d_k = work.head_gradient_k.get(t * width);
    Real* head_d_v = work.head_gradient_v.get(t * width);
    const LeafGrid<Real> score_grid = this->grid(Module::qk_product, Slot::output);
    const LeafGrid<Real> p_grid = this->grid(Module::pv_product, Slot::input);
    const Real scale = 1 / std::sqrt(static_cast<Real>(d));
    std::vector<Sum> score_sums(static_cast<size_t>(heads * t));
    std::vector<Sum> p_sums(static_cast<size_t>(heads * t));
    parallel_tasks(heads, [&](int64_t head) {
      thread_local Scratch<Real> scratch;
      Real* scores = scratch.get(4 * t * t);
      Real* p = scores + t * t;
      Real* p_quantized = p + t * t;
      Real* gradient = p_quantized + t * t;
      this->probabilities(head, scores, p, p_quantized);
      const Real* v = work.v.data() + head / this->group() * d;
      const Real* k = work.k.data() + head / this->group() * d;
      const Real* q = work.q.data() + head * d;
      const auto d_mix = operand(d_mixed + head * d, t, d, width);
      product_block(operand<Real>(p_quantized, t, t).transposed(), d_mix, head_d_v + head * d, width);
      product_block(d_mix, operand(v, t, d, this->key_width()).transposed(), gradient, t);
      for (int64_t i = 0; i < t; ++i) {
        Real* row = gradient + i * t;
        const auto index = static_cast<size_t>(head * t + i);
        quantizer_row(p_grid, p + i * t, t, row, p_sums[index]);
        train_kernels<Real>().softmax_backward(p + i * t, i + 1, scale, row);
        quantizer_row(score_grid, scores + i * t, i + 1, row, score_sums[index]);
        std::fill(row + i + 1, row + t, Real{0});
      }
      const auto d_scores = operand<Real>(gradient, t, t);
      product_block(d_scores, operand(k, t, d, this->key_width()), d_q + head * d, width);
      product_block(d_scores.transposed(), operand(q, t, d, width), head_d_k + head * d, width);
    });
    add_grid(Module::qk_product, Slot::output, score_sums);
    add_grid(Module::pv_product, Slot::input, p_sums);
    sum_groups(head_d_k, work.gradient_k.get(t * this->key_width()));
    sum_groups(head_d_v, work.gradient_v.get(t * this->key_width()));
  }

  /// out [tokens, kv_heads · d] ← the sum over the query heads that share a key/value head.
  void sum_groups(const Real* heads, Real* out) const {
    const int64_t d = this->config_.head_dim;
    for_row_blocks(this->tokens_, [&](int64_t r) {
      const Real* row = heads + r * this->query_width();
      for (int64_t h = 0; h < this->config_.num_kv_heads; ++h) {
        for (int64_t i = 0; i < d; ++i) {
          Real sum = 0;
          for (int64_t g = 0; g < this->group(); ++g) sum += row[(h * this->group() + g) * d + i];
          out[r * this->key_width() + h * d + i] = sum;
        }
      }
    });
  }

  /// From a quantized operand of an attention product back to the projection's raw output.
  void operands_backward(Module module, Module user, Slot slot, const Real* raw, int64_t width,
                         Real* gradient) {
    const LeafGrid<Real> first = this->grid(module, Slot::output);
    const LeafGrid<Real> second = this->grid(user, slot);
    const bool rotated = module != Module::v;
    std::vector<Sum> first_sums = row_sums();
    std::vector<Sum> second_sums = row_sums();
    for_row_blocks(this->tokens_, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      Real* x = scratch.get(width);
      Real* d = gradient + r * width;
      this->quantize_row(first, raw + r * width, width, x);
      if (rotated) this->rotate_row(x, width, r, false);
      quantizer_row(second, x, width, d, second_sums[static_cast<size_t>(r)]);
      if (rotated) this->rotate_row(d, width, r, true);
      quantizer_row(first, raw + r * width, width, d, first_sums[static_cast<size_t>(r)]);
    });
    add_grid(module, Slot::output, first_sums);
    add_grid(user, slot, second_sums);
  }

  BlockParameters<Real>& learned_;
  const Kept<Real>& kept_;
};

}  // namespace

template <typename Real>
void block_backward(const Block<Real>& block, BlockParameters<Real>& parameters, const Kept<Real>& kept,
                    Workspace<Real>& workspace, Real* gradient) {
  Backward<Real>(block, parameters, kept, workspace).run(gradient);
}

template void block_backward(const Block<float>&, BlockParameters<float>&, const Kept<float>&,
                             Workspace<float>&, float*);
template void block_backward(const Block<double>&, BlockParameters<double>&, const Kept<double>&,
                             Workspace<double>&, double*);

}  // namespace qeval::quant
