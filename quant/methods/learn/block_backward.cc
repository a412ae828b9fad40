#include <algorithm>

#include "quant/methods/learn/block_pass.h"

namespace qeval::quant {
namespace {

template <typename Real>
class Backward : public BlockPass<Real> {
 public:
  Backward(const Block<Real>& block, BlockParameters<Real>& parameters, const Kept<Real>& kept,
           Workspace<Real>& workspace)
      : BlockPass<Real>(block, &parameters, workspace, kept.tokens), learned_(parameters), kept_(kept) {}

  void run(Kept<Real>& kept, Real* gradient) {
    this->find_memory(kept, nullptr);
    find_gradients(gradient);
    for (const ProgramPart& part : this->program_.parts) {
      if (!part.row_wise) continue;
      this->prepare_norms(part, kept_);
      if (part.replayed) replay(part);
    }
    for (size_t p = this->program_.parts.size(); p-- > 0;) {
      const ProgramPart& part = this->program_.parts[p];
      if (part.row_wise) {
        rows(part);
        continue;
      }
      for (size_t i = part.first; i < part.last; ++i) {
        const ProgramStep& step = this->program_.steps[i];
        if (const auto* op = step.as<model::LinearOp>()) {
          linear(*op, step);
        } else {
          attention(*step.as<model::AttentionOp>(), step);
        }
      }
    }
    if (gradients_[0] != gradient) {
      std::copy_n(gradients_[0], this->tokens_ * this->config_.hidden_size, gradient);
    }
  }

 private:
  using Sum = GridGradient<Real>;

  /// What a step's rows add to gradients: of its grid, and of a norm's weight.
  struct StepSums {
    std::vector<Sum> grid;                   ///< [tokens]
    std::vector<std::vector<Real>> weights;  ///< by stretch of kRowsPerTask rows
  };

  void find_gradients(Real* gradient) {
    const auto& tensors = this->program_.tensors;
    Workspace<Real>& work = this->work_;
    gradients_.assign(tensors.size(), nullptr);
    work.gradients.resize(std::max(work.gradients.size(), tensors.size()));
    for (size_t t = 0; t < tensors.size(); ++t) {
      const size_t root = tensors[t].gradient;
      if (!tensors[t].gradient_in_memory) continue;
      gradients_[t] = root == this->program_.output ? gradient
                      : root == t                   ? work.gradients[t].get(this->tokens_ * tensors[t].width)
                                                    : nullptr;
    }
    for (size_t t = 0; t < tensors.size(); ++t) gradients_[t] = gradients_[tensors[t].gradient];
  }

  /// Row r of a tensor's gradient; `scratch` has those of the part's rows.
  Real* gradient_row(size_t tensor, int64_t r, Real* scratch) const {
    const ProgramTensor& t = this->program_.tensors[tensor];
    if (gradients_[tensor] != nullptr) return gradients_[tensor] + r * t.width;
    return scratch + this->program_.tensors[t.gradient].offset;
  }

  /// Makes what backward needs of a part again: what is in memory, or (`only_rows`) the rest of a row.
  void run_needed(const ProgramPart& part, int64_t r, Real* scratch, bool only_rows) const {
    for (size_t i = part.first; i < part.last; ++i) {
      const ProgramStep& step = this->program_.steps[i];
      const ProgramTensor& out = this->program_.tensors[step.out];
      if (out.replayed && !(only_rows && out.place != Place::row)) this->run_row(step, r, scratch);
    }
  }
  void replay(const ProgramPart& part) const {
    for_row_blocks(this->tokens_, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      run_needed(part, r, scratch.get(part.row_width), false);
    });
  }

  /// Adds rows' or heads' shares of a grid's gradient, in order; sums[i] is of the row at position i %
  /// tokens, which has no part in it where position 0 has a grid of its own.
  void add_grid(Module module, Slot slot, const std::vector<Sum>& sums) {
    const size_t index = BlockParameters<Real>::slot_index(module, slot);
    if (learned_.scale[index].value.empty()) return;
    double scale = 0;
    double offset = 0;
    for (size_t i = 0; i < sums.size(); ++i) {
      if (!this->block_.first.empty() && i % static_cast<size_t>(this->tokens_) == 0) continue;
      scale += static_cast<double>(sums[i].scale);
      offset += static_cast<double>(sums[i].offset);
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

  // ---- row-wise steps

  void rows(const ProgramPart& part) {
    std::vector<StepSums> sums(part.last - part.first);
    for (size_t i = part.first; i < part.last; ++i) {
      const ProgramStep& step = this->program_.steps[i];
      StepSums& own = sums[i - part.first];
      if (step.operation == nullptr || step.as<model::ActivateOp>() != nullptr) {
        own.grid.resize(static_cast<size_t>(this->tokens_));
      }
      if (step.as<model::NormOp>() != nullptr) {
        own.weights.resize(static_cast<size_t>((this->tokens_ + kRowsPerTask - 1) / kRowsPerTask));
      }
    }
    for_row_blocks(this->tokens_, [&](int64_t r) {
      thread_local Scratch<Real> scratch;
      Real* values = scratch.get(2 * part.row_width);
      run_needed(part, r, values, true);
      for (size_t i = part.last; i-- > part.first;) {
        row_backward(this->program_.steps[i], r, values, values + part.row_width, sums[i - part.first]);
      }
    });
    for (size_t i = part.last; i-- > part.first;) {
      const ProgramStep& step = this->program_.steps[i];
      const StepSums& own = sums[i - part.first];
      if (step.operation == nullptr) add_grid(step.module, step.slot, own.grid);
      if (step.as<model::ActivateOp>() != nullptr) add_grid(Module::activation, Slot::input2, own.grid);
      if (const auto* norm = step.as<model::NormOp>()) norm_weight(*norm, step, own.weights);
    }
  }

  /// Hands dL/d(in[input]) of a row to its gradient: `make(d)` writes it to d, which may be that of the
  /// step's output.
  template <typename Make>
  void give(const ProgramStep& step, size_t input, int64_t r, Real* gradients, const Make& make) const {
    const int64_t n = this->program_.tensors[step.in[input]].width;
    Real* to = gradient_row(step.in[input], r, gradients);
    if (step.is_first[input]) {
      make(to);
      return;
    }
    thread_local Scratch<Real> scratch;
    Real* own = scratch.get(n);
    make(own);
    for (int64_t i = 0; i < n; ++i) to[i] += own[i];
  }

  void row_backward(const ProgramStep& step, int64_t r, Real* values, Real* gradients, StepSums& sums) const {
    const int64_t n = this->program_.tensors[step.out].width;
    const Real* d_out = gradient_row(step.out, r, gradients);
    const Real* x = this->row(step.in[0], r, values);
    const auto index = static_cast<size_t>(r);
    if (step.operation == nullptr) {
      const LeafGrid<Real> grid = this->grid(step.module, step.slot, r);
      give(step, 0, r, gradients, [&](Real* d) {
        std::copy_n(d_out, n, d);
        quantizer_row(grid, x, n, d, sums.grid[index]);
      });
    } else if (const auto* norm = step.as<model::NormOp>()) {
      std::vector<Real>& part = sums.weights[static_cast<size_t>(r / kRowsPerTask)];
      part.resize(static_cast<size_t>(norm->weights()));
      give(step, 0, r, gradients, [&](Real* d) { norm_backward(*norm, x, d_out, part.data(), d); });
    } else if (const auto* rotate = step.as<model::RotateOp>()) {
      give(step, 0, r, gradients, [&](Real* d) {
        std::copy_n(d_out, n, d);
        this->rotate_row(*rotate, d, r, true);
      });
    } else if (const auto* hadamard = step.as<model::HadamardOp>()) {
      give(step, 0, r, gradients, [&](Real* d) {
        std::copy_n(d_out, n, d);
        this->hadamard_row(*hadamard, d, true);
      });
    } else if (const auto* activate = step.as<model::ActivateOp>()) {
      give(step, 0, r, gradients,
           [&](Real* d) { activate_backward(*activate, r, x, d_out, d, sums.grid[index]); });
    } else if (step.as<model::MultiplyOp>() != nullptr) {
      const Real* y = this->row(step.in[1], r, values);
      const auto times = [&](const Real* other) {
        return [=](Real* d) {
          for (int64_t i = 0; i < n; ++i) d[i] = d_out[i] * other[i];
        };
      };
      give(step, 1, r, gradients, times(x));
      give(step, 0, r, gradients, times(y));
    } else {
      const auto factor = static_cast<Real>(step.as<model::AddOp>()->factor);
      give(step, 1, r, gradients, [&](Real* d) {
        for (int64_t i = 0; i < n; ++i) d[i] = factor == 1 ? d_out[i] : factor * d_out[i];
      });
      if (gradient_row(step.in[0], r, gradients) == d_out) return;  // it is there
      give(step, 0, r, gradients, [&](Real* d) { std::copy_n(d_out, n, d); });
    }
  }

  /// One row of y = (x − mean)·factor·w: dx, and d_weight += dy·x̂.
  void norm_backward(const model::NormOp& op, const Real* x, const Real* dy, Real* d_weight, Real* dx) const {
    const int64_t n = op.group;
    const bool centered = op.kind == model::NormKind::layer;
    for (int64_t first = 0; first < op.width; first += n) {
      const int64_t own = op.own_weights ? first : 0;
      const Real* w = this->norms_[static_cast<size_t>(op.module)].weight + own;
      const NormRow<Real> row(op, x + first, n);
      Real sum = 0;      // Σ g, g = dy · w
      Real product = 0;  // Σ g · x̂
      for (int64_t i = 0; i < n; ++i) {
        const Real normalized = (x[first + i] - row.mean) * row.factor;
        const Real g = dy[first + i] * w[i];
        d_weight[own + i] += dy[first + i] * normalized;
        sum += g;
        product += g * normalized;
      }
      const Real mean = centered ? sum / static_cast<Real>(n) : Real{0};
      const Real along = product / static_cast<Real>(n);
      for (int64_t i = 0; i < n; ++i) {
        const Real normalized = (x[first + i] - row.mean) * row.factor;
        dx[first + i] = row.factor * (dy[first + i] * w[i] - mean - normalized * along);
      }
    }
  }

  void activate_backward(const model::ActivateOp& op, int64_t position, const Real* x, const Real* d_out,
                         Real* d, Sum& sum) const {
    const int64_t n = op.width;
    switch (op.kind) {
      case model::Activation::silu: {
        thread_local Scratch<Real> scratch;
        Real* sigmoid = scratch.get(3 * n);
        Real* rounded = sigmoid + n;
        Real* da = rounded + n;
        const LeafGrid<Real> grid = this->grid(Module::activation, Slot::input2, position);
        train_kernels<Real>().sigmoid(x, n, sigmoid);
        this->quantize_row(grid, sigmoid, n, rounded);
        for (int64_t i = 0; i < n; ++i) {
          d[i] = d_out[i] * rounded[i];
          da[i] = d_out[i] * x[i];
        }
        quantizer_row(grid, sigmoid, n, da, sum);
        for (int64_t i = 0; i < n; ++i) d[i] += da[i] * sigmoid[i] * (1 - sigmoid[i]);
        return;
      }
      case model::Activation::gelu_erf:
      case model::Activation::gelu_tanh:
        if (this->is_tanh(op)) {
          for (int64_t i = 0; i < n; ++i) d[i] = d_out[i] * tanh_gelu_derivative(x[i]);
        } else {
          for (int64_t i = 0; i < n; ++i) d[i] = d_out[i] * gelu_derivative(x[i]);
        }
        return;
      case model::Activation::relu:
        for (int64_t i = 0; i < n; ++i) d[i] = x[i] > 0 ? d_out[i] : Real{0};
        return;
      case model::Activation::relu2:
        for (int64_t i = 0; i < n; ++i) d[i] = d_out[i] * 2 * std::max(x[i], Real{0});
        return;
      case model::Activation::xielu:
        return;  // refused before
    }
  }

  /// d/dx of x·Φ(x) = Φ(x) + x·φ(x).
  static Real gelu_derivative(Real x) {
    const Real distribution =
        static_cast<Real>(0.5) * (1 + std::erf(x * static_cast<Real>(0.7071067811865475)));
    const Real density = static_cast<Real>(0.3989422804014327) * std::exp(-x * x / 2);
    return distribution + x * density;
  }
  /// d/dx of x·σ(2u), u = √(2/π)·(x + 0.044715·x³).
  static Real tanh_gelu_derivative(Real x) {
    constexpr auto kRoot = static_cast<Real>(0.7978845608028654), kCubic = static_cast<Real>(0.044715);
    const Real sigmoid = 1 / (1 + std::exp(-2 * kRoot * (x + kCubic * x * x * x)));
    return sigmoid + x * sigmoid * (1 - sigmoid) * 2 * kRoot * (1 + 3 * kCubic * x * x);
  }

  void norm_weight(const model::NormOp& op, const ProgramStep& step,
                   const std::vector<std::vector<Real>>& parts) {
    std::vector<Real> d_weight(static_cast<size_t>(op.weights()));
    for (const std::vector<Real>& part : parts) {
      for (size_t i = 0; i < part.size(); ++i) d_weight[i] += part[i];
    }
    quantize_weight_backward<Real>(this->weight(op.module), this->block_.spec(op.module, Slot::weight),
                                   this->clipping(op.module), kept_.grids[static_cast<size_t>(op.module)],
                                   nullptr, d_weight.data(), weight_gradients(op.module));
    if (!op.bias) return;
    std::vector<Real> sums = column_sums(gradients_[step.out], op.width);
    for (size_t i = static_cast<size_t>(op.weights()); i < sums.size(); ++i) {
      sums[i % static_cast<size_t>(op.weights())] += sums[i];  // groups share their bias
    }
    bias_backward(op.module, sums);
  }

  // ---- products

  /// Where the gradients of a weight's transformation and clipping go.
  WeightGradients<Real> weight_gradients(Module module) {
    const auto m = static_cast<size_t>(module);
    WeightGradients<Real> out;
    if (!learned_.upper[m].value.empty()) {
      out.upper = learned_.upper[m].gradient.data();
      out.lower = learned_.lower[m].gradient.data();
    }
    if (!learned_.factor[m].value.empty()) out.grid_factor = learned_.factor[m].gradient.data();
    if (!learned_.code[m].value.empty()) out.code = learned_.code[m].gradient.data();
    for (LetScale<Real>& let : learned_.let) {
      Real* factor = let.gradient.data();
      if (let.edge.producer == module) (is_norm(module) ? out.column_divisor : out.row_divisor) = factor;
      if (!let.edge.feeds(module)) continue;
      (let.edge.rows ? out.row_multiplier : out.column_multiplier) = factor;
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
  void linear(const model::LinearOp& op, const ProgramStep& step) {
    const WeightGrids<Real>& grids = kept_.grids[static_cast<size_t>(op.module)];
    const Real* in = this->memory_[step.in[0]];
    const Real* d_out = gradients_[step.out];
    const TransformedWeight<Real> weight = this->weight(op.module);
    const QuantSpec& spec = this->block_.spec(op.module, Slot::weight);
    Real* kept = spec.enabled() && !weight.plain() ? this->work_.transformed.get(op.rows * op.cols) : nullptr;
    const Real* w = this->quantized_weight(op.module, grids, this->work_.weight, kept);
    product(operand(d_out, this->tokens_, op.rows), operand(w, op.rows, op.cols), gradients_[step.in[0]],
            op.cols, !step.is_first[0]);
    Real* d_weight = this->work_.weight_gradient.get(op.rows * op.cols);
    product(operand(d_out, this->tokens_, op.rows).transposed(), operand(in, this->tokens_, op.cols),
            d_weight, op.cols);
    quantize_weight_backward(weight, spec, this->clipping(op.module), grids, spec.enabled() ? kept : w,
                             d_weight, weight_gradients(op.module));
    if (!this->block_.weights.linear(op.module).bias->empty()) {
      bias_backward(op.module, column_sums(d_out, op.rows));
    }
  }

  /// Through both attention products: the gradients of the quantized q, k and v.
  void attention(const model::AttentionOp& op, const ProgramStep& step) {
    const int64_t d = op.head_dim, e = op.value_dim, t = this->tokens_, heads = op.heads;
    const Real *queries = this->memory_[step.in[0]], *keys = this->memory_[step.in[1]],
               *values = this->memory_[step.in[2]];
    const Real* d_mixed = gradients_[step.out];
    Real* d_q = gradients_[step.in[0]];
    Real* head_d_k = this->work_.head_gradient_k.get(t * heads * d);
    Real* head_d_v = this->work_.head_gradient_v.get(t * heads * e);
    const auto scale = static_cast<Real>(op.scale), cap = static_cast<Real>(op.softcap);
    std::vector<Sum> score_sums(static_cast<size_t>(heads * t)), cap_sums(score_sums), p_sums(score_sums);
    parallel_tasks(heads, [&](int64_t head) {
      thread_local Scratch<Real> scratch;
      Real* scores = scratch.get((cap != 0 ? 5 : 4) * t * t);
      Real* p = scores + t * t;
      Real* p_quantized = p + t * t;
      Real* gradient = p_quantized + t * t;
      Real* capped = cap != 0 ? gradient + t * t : nullptr;
      this->probabilities(op, head, queries, keys,
                          {.scores = scores, .capped = capped, .raw = p, .quantized = p_quantized});
      const auto q = operand(queries + head * d, t, d, heads * d);
      const auto k = operand(keys + head / op.group() * d, t, d, op.kv_heads * d);
      const auto v = operand(values + head / op.group() * e, t, e, op.kv_heads * e);
      const auto d_mix = operand(d_mixed + head * e, t, e, heads * e);
      product_block(operand<Real>(p_quantized, t, t).transposed(), d_mix, head_d_v + head * e, heads * e);
      product_block(d_mix, v.transposed(), gradient, t);
      for (int64_t i = 0; i < t; ++i) {
        const int64_t first = this->first_key(op, i), n = i + 1 - first;
        Real* row = gradient + i * t;
        Real* seen = row + first;
        const auto index = static_cast<size_t>(head * t + i);
        quantizer_row(this->grid(Module::pv_product, Slot::input, i), p + i * t, t, row, p_sums[index]);
        train_kernels<Real>().softmax_backward(p + i * t + first, n, cap != 0 ? Real{1} : scale, seen);
        if (cap != 0) {
          const Real* made = capped + i * t + first;
          quantizer_row(this->grid(Module::softcap, Slot::output, i), made, n, seen, cap_sums[index]);
          for (int64_t j = 0; j < n; ++j) seen[j] *= scale * (1 - made[j] / cap * (made[j] / cap));
        }
        quantizer_row(this->grid(Module::qk_product, Slot::output, i), scores + i * t + first, n, seen,
                      score_sums[index]);
        std::fill(row, seen, Real{0});
        std::fill(seen + n, row + t, Real{0});
      }
      const auto d_scores = operand<Real>(gradient, t, t);
      product_block(d_scores, k, d_q + head * d, heads * d);
      product_block(d_scores.transposed(), q, head_d_k + head * d, heads * d);
    });
    add_grid(Module::qk_product, Slot::output, score_sums);
    add_grid(Module::softcap, Slot::output, cap_sums);
    add_grid(Module::pv_product, Slot::input, p_sums);
    sum_groups(op, d, head_d_k, gradients_[step.in[1]]);
    sum_groups(op, e, head_d_v, gradients_[step.in[2]]);
  }

  /// out [tokens, kv_heads · d] ← the sum over the query heads that share a key/value head.
  void sum_groups(const model::AttentionOp& op, int64_t d, const Real* heads, Real* out) const {
    for_row_blocks(this->tokens_, [&](int64_t r) {
      const Real* row = heads + r * op.heads * d;
      for (int64_t h = 0; h < op.kv_heads; ++h) {
        for (int64_t i = 0; i < d; ++i) {
          Real sum = 0;
          for (int64_t g = 0; g < op.group(); ++g) sum += row[(h * op.group() + g) * d + i];
          out[r * op.kv_heads * d + h * d + i] = sum;
        }
      }
    });
  }

  BlockParameters<Real>& learned_;
  const Kept<Real>& kept_;
  std::vector<Real*> gradients_;  ///< by tensor; null: a row at a time
};

}  // namespace

template <typename Real>
void block_backward(const Block<Real>& block, BlockParameters<Real>& parameters, Kept<Real>& kept,
                    Workspace<Real>& workspace, Real* gradient) {
  Backward<Real>(block, parameters, kept, workspace).run(kept, gradient);
}

template void block_backward(const Block<float>&, BlockParameters<float>&, Kept<float>&, Workspace<float>&,
                             float*);
template void block_backward(const Block<double>&, BlockParameters<double>&, Kept<double>&,
                             Workspace<double>&, double*);

}  // namespace qeval::quant
