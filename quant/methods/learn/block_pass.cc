#include "quant/methods/learn/block_pass.h"

#include <algorithm>

namespace qeval::quant {

template <typename Real>
TransformedWeight<Real> BlockPass<Real>::weight(Module module) const {
  TransformedWeight<Real> w;
  if (is_norm(module)) {
    const std::vector<Real>& stored = *block_.weights.norm(module).weight;
    w.data = stored.data();
    w.rows = 1;
    w.cols = std::ssize(stored);
  } else {
    const auto& linear = block_.weights.linear(module);
    w.data = linear.weight;
    w.rows = linear.rows;
    w.cols = linear.cols;
  }
  if (parameters_ == nullptr) return w;
  const auto m = static_cast<size_t>(module);
  if (!parameters_->factor[m].value.empty()) {
    const QuantSpec& codes = parameters_->codes[m];
    w.grid_factor = parameters_->factor[m].value.data();
    w.group = codes.group_size > 0 ? codes.group_size : w.cols;
    w.per_tensor = !codes.per_channel && codes.group_size < 0;
  }
  for (const LetScale<Real>& let : parameters_->let) {
    const Real* factor = let.value.data();
    if (let.edge.producer == module) (is_norm(module) ? w.column_divisor : w.row_divisor) = factor;
    if (!let.edge.feeds(module)) continue;
    (let.edge.rows ? w.row_multiplier : w.column_multiplier) = factor;
  }
  return w;
}

template <typename Real>
bool BlockPass<Real>::bias(Module module, std::vector<Real>& out) const {
  out = is_norm(module) ? *block_.weights.norm(module).bias : *block_.weights.linear(module).bias;
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
                                              Scratch<Real>& buffer, Real* transformed) const {
  const TransformedWeight<Real> w = weight(module);
  const QuantSpec& spec = block_.spec(module, Slot::weight);
  if (parameters_ == nullptr || (w.plain() && !spec.enabled())) return w.data;
  Real* out = buffer.get(w.rows * w.cols);
  quantize_weight(w, spec, grids, out, transformed);
  return out;
}

template <typename Real>
void BlockPass<Real>::prepare_norms(const ProgramPart& part, const Kept<Real>& kept) {
  for (size_t i = part.first; i < part.last; ++i) {
    const auto* norm = program_.steps[i].template as<model::NormOp>();
    if (norm == nullptr) continue;
    NormState& state = norms_[static_cast<size_t>(norm->module)];
    state.weight =
        quantized_weight(norm->module, kept.grids[static_cast<size_t>(norm->module)], state.buffer);
    bias(norm->module, state.bias);
  }
}

template <typename Real>
void BlockPass<Real>::find_memory(Kept<Real>& kept, Real* output) {
  const std::vector<ProgramTensor>& tensors = program_.tensors;
  memory_.assign(tensors.size(), nullptr);
  kept.tensors.resize(static_cast<size_t>(program_.kept));
  work_.values.resize(std::max(work_.values.size(), tensors.size()));
  for (size_t t = 0; t < tensors.size(); ++t) {
    const int64_t count = tokens_ * tensors[t].width;
    if (tensors[t].place == Place::kept) {
      memory_[t] = kept.tensors[static_cast<size_t>(tensors[t].offset)].get(count);
    } else if (t == program_.output) {
      memory_[t] = output;
    } else if (tensors[t].place == Place::shared) {
      memory_[t] = work_.values[t].get(count);
    }
  }
}

template <typename Real>
void BlockPass<Real>::run_row(const ProgramStep& step, int64_t r, Real* scratch) const {
  const int64_t n = program_.tensors[step.out].width;
  const Real* x = row(step.in[0], r, scratch);
  Real* y = row(step.out, r, scratch);
  if (step.operation == nullptr) {
    quantize_row(grid(step.module, step.slot, r), x, n, y);
  } else if (const auto* norm = step.as<model::NormOp>()) {
    norm_row(*norm, x, y);
  } else if (const auto* rotate = step.as<model::RotateOp>()) {
    std::memcpy(y, x, static_cast<size_t>(n) * sizeof(Real));
    rotate_row(*rotate, y, r, false);
  } else if (const auto* hadamard = step.as<model::HadamardOp>()) {
    std::memcpy(y, x, static_cast<size_t>(n) * sizeof(Real));
    hadamard_row(*hadamard, y, false);
  } else if (const auto* activate = step.as<model::ActivateOp>()) {
    activate_row(*activate, r, x, y);
  } else if (step.as<model::MultiplyOp>() != nullptr) {
    const Real* up = row(step.in[1], r, scratch);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * up[i];
  } else {
    const Real* update = row(step.in[1], r, scratch);
    const auto factor = static_cast<Real>(step.as<model::AddOp>()->factor);
    if (factor == 1) {
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] + update[i];
    } else {
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] + factor * update[i];
    }
  }
}

template <typename Real>
void BlockPass<Real>::norm_row(const model::NormOp& op, const Real* x, Real* y) const {
  const NormState& state = norms_[static_cast<size_t>(op.module)];
  for (int64_t first = 0; first < op.width; first += op.group) {
    const int64_t own = op.own_weights ? first : 0;
    const Real* w = state.weight + own;
    const NormRow<Real> norm(op, x + first, op.group);
    for (int64_t i = 0; i < op.group; ++i) {
      y[first + i] = (x[first + i] - norm.mean) * norm.factor * w[i];
      if (!state.bias.empty()) y[first + i] += state.bias[static_cast<size_t>(own + i)];
    }
  }
}

template <typename Real>
void BlockPass<Real>::activate_row(const model::ActivateOp& op, int64_t position, const Real* x,
                                   Real* y) const {
  const int64_t n = op.width;
  switch (op.kind) {
    case model::Activation::silu: {
      thread_local Scratch<Real> scratch;
      Real* sigmoid = scratch.get(n);
      train_kernels<Real>().sigmoid(x, n, sigmoid);
      quantize_row(grid(Module::activation, Slot::input2, position), sigmoid, n, sigmoid);
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] * sigmoid[i];
      return;
    }
    case model::Activation::gelu_erf:
    case model::Activation::gelu_tanh:
      if (is_tanh(op)) {
        for (int64_t i = 0; i < n; ++i) {
          const Real u = static_cast<Real>(0.7978845608028654) *
                         (x[i] + static_cast<Real>(0.044715) * x[i] * x[i] * x[i]);
          y[i] = x[i] / (1 + std::exp(-2 * u));
        }
      } else {
        for (int64_t i = 0; i < n; ++i) {
          y[i] = x[i] * static_cast<Real>(0.5) * (1 + std::erf(x[i] * static_cast<Real>(0.7071067811865475)));
        }
      }
      return;
    case model::Activation::relu:
      for (int64_t i = 0; i < n; ++i) y[i] = std::max(x[i], Real{0});
      return;
    case model::Activation::relu2:
      for (int64_t i = 0; i < n; ++i) y[i] = std::max(x[i], Real{0}) * std::max(x[i], Real{0});
      return;
    case model::Activation::xielu:
      return;  // refused before
  }
}

template <typename Real>
void BlockPass<Real>::rotate_row(const model::RotateOp& op, Real* row, int64_t position, bool inverse) const {
  const model::RotaryTable& table = block_.rotary->of(op);
  const int64_t half = table.half();
  const float* cosines = table.cosines(position);
  const float* sines = table.sines(position);
  for (int64_t h = op.first; h < op.width; h += op.head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const auto c = static_cast<Real>(cosines[i]);
      const auto s = static_cast<Real>(inverse ? -sines[i] : sines[i]);
      const Real a = row[h + i];
      const Real b = row[h + half + i];
      row[h + i] = a * c - b * s;
      row[h + half + i] = b * c + a * s;
    }
  }
  if (op.position_beta == 0) return;
  const auto factor = static_cast<Real>(model::position_factor(op, position));
  for (int64_t i = 0; i < op.width; ++i) row[i] *= factor;
}

template <typename Real>
void BlockPass<Real>::hadamard_row(const model::HadamardOp& op, Real* row, bool inverse) const {
  const Turning& turning = hadamards_.at(op.block);
  const model::HadamardMatrix& h = inverse ? turning.back : turning.there;
  thread_local Scratch<Real> scratch;
  Real* room = scratch.get(h.order);
  for (int64_t c = 0; c < op.width; c += op.block) model::multiply_hadamard(h, row + c, room);
  const Real scale = 1 / std::sqrt(static_cast<Real>(op.block));
  for (int64_t c = 0; c < op.width; ++c) row[c] *= scale;
}

template <typename Real>
void BlockPass<Real>::probabilities(const model::AttentionOp& op, int64_t head, const Real* q, const Real* k,
                                    const ScoreRows<Real>& rows) const {
  const int64_t d = op.head_dim, t = tokens_;
  Real* quantized = rows.quantized;
  product_block(operand(q + head * d, t, d, op.heads * d),
                operand(k + head / op.group() * d, t, d, op.kv_heads * d).transposed(), quantized, t);
  const size_t bytes = static_cast<size_t>(t * t) * sizeof(Real);
  if (rows.scores != nullptr) std::memcpy(rows.scores, quantized, bytes);
  const auto scale = static_cast<Real>(op.scale), cap = static_cast<Real>(op.softcap);
  for (int64_t i = 0; i < t; ++i) {
    // The mask comes after the scores' quantizer: what it hides need not be quantized, but its zero
    // probabilities are, and an offset below 0 makes something of them.
    const int64_t first = first_key(op, i), n = i + 1 - first;
    const LeafGrid<Real> cap_grid = grid(Module::softcap, Slot::output, i);
    Real* row = quantized + i * t;
    Real* seen = row + first;
    quantize_row(grid(Module::qk_product, Slot::output, i), seen, n, seen);
    if (cap != 0) {
      for (int64_t j = 0; j < n; ++j) seen[j] = cap * std::tanh(seen[j] * scale / cap);
      if (rows.capped != nullptr)
        std::memcpy(rows.capped + i * t, row, static_cast<size_t>(t) * sizeof(Real));
      quantize_row(cap_grid, seen, n, seen);
    }
    train_kernels<Real>().softmax(seen, n, cap != 0 ? Real{1} : scale);
    std::fill(row, seen, Real{0});
    std::fill(seen + n, row + t, Real{0});
    if (rows.raw != nullptr) std::memcpy(rows.raw + i * t, row, static_cast<size_t>(t) * sizeof(Real));
    quantize_row(grid(Module::pv_product, Slot::input, i), row, t, row);
  }
}

template class BlockPass<float>;
template class BlockPass<double>;

}  // namespace qeval::quant
