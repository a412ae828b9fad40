#include "model/float_arithmetic.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <numeric>

#include "model/kernels/gemm.h"
#include "model/kernels/kernels.h"

namespace qeval::model {

std::unique_ptr<Arithmetic> make_float_arithmetic(const Model& model, int64_t max_positions) {
  return std::make_unique<FloatArithmetic>(model, max_positions);
}

FloatArithmetic::RotaryTables::RotaryTables(const Rotary& rotary, int64_t positions)
    : rotary_(rotary), positions_(positions), usual_(std::make_shared<RotaryTable>(rotary, positions)) {}

std::shared_ptr<const RotaryTable> FloatArithmetic::RotaryTables::at(int64_t length) const {
  const int64_t length_class = rotary_.length_class(length);
  if (length_class == 0) return usual_;
  constexpr size_t kMost = 16;  // lengths that are scored one after the other
  const std::lock_guard lock(mutex_);
  auto& table = others_[length_class];
  if (table) return table;
  const int64_t positions = rotary_.scaling.kind == RopeScaling::Kind::dynamic ? length : positions_;
  auto made = std::make_shared<const RotaryTable>(rotary_, positions, length);
  table = made;
  if (others_.size() > kMost)
    others_.erase(others_.begin()->first == length_class ? std::next(others_.begin()) : others_.begin());
  return made;
}

FloatArithmetic::FloatArithmetic(const Model& model, int64_t max_positions)
    : model_(model), rotary_(model.config.rotary, max_positions) {
  if (model.config.local_rotary) local_rotary_.emplace(*model.config.local_rotary, max_positions);
  for (const BlockGraph& block : model.config.graph.blocks) {
    for (const Operation& operation : block.operations) {
      const auto* op = std::get_if<HadamardOp>(&operation);
      if (op != nullptr && !hadamards_.contains(op->block))
        hadamards_.emplace(op->block, make_hadamard(op->block));
    }
  }
}

void FloatArithmetic::embed(std::span<const int32_t> tokens, const RowPositions& rows,
                            Tensor& residual) const {
  const ModelConfig& c = config();
  const auto count = static_cast<int64_t>(tokens.size());
  const int64_t width = model_.embedding.cols;
  // Gemma multiplies by √hidden_size rounded to the weights' type; in float32 that is float32.
  const float scale =
      (c.scale_embedding ? std::sqrt(static_cast<float>(c.hidden_size)) : 1.0F) * c.embedding_factor;
  Tensor narrow;
  Tensor& embedded = c.embedding_size != 0 ? narrow : residual;
  embedded.resize(count, width, sizeof(float));
  for_each_row(count, [&](int64_t r) {
    auto* row = embedded.row<float>(r);
    model_.embedding.decode_rows(tokens[static_cast<size_t>(r)], 1, row);
    if (scale != 1.0F) {
      for (int64_t i = 0; i < width; ++i) row[i] *= scale;
    }
  });
  if (c.embedding_size != 0) {
    residual.resize(count, c.hidden_size, sizeof(float));
    const Product product{view(model_.embedding_in), residual.row<float>(0)};
    model::multiply(narrow.row<float>(0), count, {&product, 1});
  }
  if (!c.learned_positions) return;
  for_each_row(count, [&](int64_t r) {
    std::vector<float> learned(static_cast<size_t>(c.hidden_size));
    model_.positions.decode_rows(rows.positions[static_cast<size_t>(r)] + c.position_offset, 1,
                                 learned.data());
    kernels().add(learned.data(), c.hidden_size, residual.row<float>(r));
  });
}

void FloatArithmetic::norm_row(const NormOp& op, const float* weight, const float* bias, bool without_eps,
                               const float* x, float* y) {
  const Kernels& kernel = kernels();
  const auto eps = static_cast<float>(op.eps);
  for (int64_t first = 0; first < op.width; first += op.group) {
    const int64_t own = op.own_weights ? first : 0;
    if (op.kind == NormKind::layer) {
      kernel.layer_norm(x + first, weight + own, bias == nullptr ? nullptr : bias + own, eps, op.group,
                        y + first);
    } else if (without_eps) {
      kernel.l2_norm(x + first, weight + own, op.group, y + first);
    } else {
      kernel.rms_norm(x + first, weight + own, eps, op.group, y + first);
    }
  }
}

void FloatArithmetic::norm(int64_t layer, const NormOp& op, const Tensor& in, Tensor& out) const {
  const NormWeights& w = weights(layer, op);
  if (&in != &out) out.resize(in.rows, op.width, sizeof(float));
  const bool without_eps = config().l2norm_as_rmsnorm && op.module != Module::final_norm;
  const float* bias = w.bias.empty() ? nullptr : w.bias.data();
  for_each_row(in.rows, [&](int64_t r) {
    norm_row(op, w.weight.data(), bias, without_eps, in.row<float>(r), out.row<float>(r));
  });
}

std::vector<Product> FloatArithmetic::products(int64_t layer, int64_t rows,
                                               std::span<const Target> targets) const {
  std::vector<Product> products;
  for (const Target& target : targets) {
    const LinearWeights& w = weights(layer, *target.op);
    target.out->resize(rows, w.weight.rows, sizeof(float));
    products.push_back({view(w), target.out->row<float>(0)});
  }
  return products;
}

void FloatArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  model::multiply(in.row<float>(0), in.rows, products(layer, in.rows, targets));
}

void FloatArithmetic::rotate(int64_t, const RotateOp& op, const RowPositions& rows, Tensor& heads) const {
  const RotaryTables& tables = op.local ? *local_rotary_ : rotary_;
  const Kernels& kernel = kernels();
  // A table per length of the batch, where there is more than one.
  std::map<int32_t, std::shared_ptr<const RotaryTable>> by_length;
  for (const int32_t length : rows.lengths) {
    auto& table = by_length[length];
    if (!table) table = tables.at(length);
  }
  const std::shared_ptr<const RotaryTable> usual = tables.at(0);
  for_each_row(heads.rows, [&](int64_t r) {
    const auto i = static_cast<size_t>(r);
    const int64_t position = rows.positions[i];
    const RotaryTable& table = rows.lengths.empty() ? *usual : *by_length.at(rows.lengths[i]);
    assert(position < table.positions());
    auto* row = heads.row<float>(r);
    for (int64_t h = 0; h < heads.cols; h += op.head_dim) {
      kernel.rotate(row + h + op.first, table.cosines(position), table.sines(position), table.half());
    }
    if (op.position_beta == 0) return;
    const float factor = position_factor(op, position);
    for (int64_t c = 0; c < heads.cols; ++c) row[c] *= factor;
  });
}

void FloatArithmetic::split_latent(int64_t, const SplitLatentOp& op, const Tensor& latent,
                                   const Tensor& heads, Tensor& k, Tensor& v) const {
  const int64_t width = op.nope + op.rope, both = op.nope + op.value_dim;
  k.resize(heads.rows, op.heads * width, sizeof(float));
  v.resize(heads.rows, op.heads * op.value_dim, sizeof(float));
  const auto copy = [](const float* from, int64_t n, float* to) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  };
  for_each_row(heads.rows, [&](int64_t r) {
    const float* shared = latent.row<float>(r) + latent.cols - op.rope;
    for (int64_t h = 0; h < op.heads; ++h) {
      const float* own = heads.row<float>(r) + h * both;
      copy(own, op.nope, k.row<float>(r) + h * width);
      copy(shared, op.rope, k.row<float>(r) + h * width + op.nope);
      copy(own + op.nope, op.value_dim, v.row<float>(r) + h * op.value_dim);
    }
  });
}

void FloatArithmetic::add(int64_t, const AddOp& op, const Tensor& update, Tensor& residual) const {
  for_each_row(residual.rows, [&](int64_t r) {
    auto* row = residual.row<float>(r);
    if (op.factor == 1.0F) {
      kernels().add(update.row<float>(r), residual.cols, row);
      return;
    }
    const auto* x = update.row<float>(r);
    for (int64_t i = 0; i < residual.cols; ++i) row[i] += x[i] * op.factor;
  });
}

bool FloatArithmetic::prepare_activation(const ActivateOp& op, float* x, int64_t n) {
  if (op.limit != 0) {
    for (int64_t i = 0; i < n; ++i) {
      const float g = std::min(x[i], op.limit);
      x[i] = g / (1.0F + std::exp(-op.slope * g));
    }
    return true;
  }
  if (op.sparsity == 0) return false;
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) {
    const double off = static_cast<double>(x[i]) - mean;
    squares += off * off;
  }
  const auto cut = static_cast<float>(mean + static_cast<double>(op.sparsity) *
                                                 std::sqrt(squares / static_cast<double>(n)));
  for (int64_t i = 0; i < n; ++i) x[i] = std::max(x[i] - cut, 0.0F);
  return false;
}

void FloatArithmetic::activate_row(int64_t layer, const ActivateOp& op, float* x, int64_t n) const {
  if (prepare_activation(op, x, n)) return;
  switch (op.kind) {
    case Activation::silu:
      kernels().silu(x, n, x);
      return;
    case Activation::gelu_tanh:
      kernels().gelu_tanh(x, n, x);
      return;
    case Activation::gelu_erf:
      kernels().gelu_erf(x, n, x);
      return;
    case Activation::relu:
      for (int64_t i = 0; i < n; ++i) x[i] = std::max(x[i], 0.0F);
      return;
    case Activation::relu2:
      for (int64_t i = 0; i < n; ++i) x[i] = std::max(x[i], 0.0F) * std::max(x[i], 0.0F);
      return;
    case Activation::xielu:
      break;
  }
  // docs/architectures.md#feed-forward.
  const XieluWeights& w = *model_.layers[static_cast<size_t>(layer)].xielu;
  const auto softplus = [](float a) { return std::max(a, 0.0F) + std::log1p(std::exp(-std::abs(a))); };
  const float positive = softplus(w.alpha_p), negative = w.beta + softplus(w.alpha_n);
  for (int64_t i = 0; i < n; ++i) {
    x[i] = x[i] > 0 ? positive * x[i] * x[i] + w.beta * x[i]
                    : negative * (std::expm1(std::min(x[i], w.eps)) - x[i]) + w.beta * x[i];
  }
}

void FloatArithmetic::activate(int64_t layer, const ActivateOp& op, Tensor& gate) const {
  for_each_row(gate.rows, [&](int64_t r) { activate_row(layer, op, gate.row<float>(r), gate.cols); });
}

void FloatArithmetic::multiply_row(const MultiplyOp& op, const float* up, float* gate, int64_t n) {
  if (op.limit == 0 && op.offset == 0) {
    kernels().multiply(up, n, gate);
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const float u = op.limit == 0 ? up[i] : std::clamp(up[i], -op.limit, op.limit);
    gate[i] *= u + op.offset;
  }
}

void FloatArithmetic::multiply(int64_t, const MultiplyOp& op, const Tensor& up, Tensor& gate) const {
  for_each_row(gate.rows, [&](int64_t r) {
    multiply_row(op, up.row<float>(r) + op.first, gate.row<float>(r), gate.cols);
  });
}

void FloatArithmetic::hadamard(int64_t, const HadamardOp& op, Tensor& value) const {
  const HadamardMatrix& h = hadamards_.at(op.block);
  const float scale = 1.0F / std::sqrt(static_cast<float>(op.block));
  for_each_row(value.rows, [&](int64_t r) {
    thread_local std::vector<float> scratch;
    scratch.resize(static_cast<size_t>(h.order));
    auto* row = value.row<float>(r);
    for (int64_t c = 0; c < op.width; c += op.block) multiply_hadamard(h, row + c, scratch.data());
    for (int64_t c = 0; c < op.width; ++c) row[c] *= scale;
  });
}

void FloatArithmetic::gather(const Tensor& tensor, std::span<const int64_t> rows, Tensor& out) const {
  out.resize(static_cast<int64_t>(rows.size()), tensor.cols, sizeof(float));
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out.row<float>(static_cast<int64_t>(i)), tensor.row<float>(rows[i]),
                static_cast<size_t>(tensor.cols) * sizeof(float));
  }
}

void FloatArithmetic::finish(const Tensor& residual, Tensor& out) const {
  Tensor normed;
  Tensor& last = config().embedding_size != 0 ? normed : out;
  if (config().graph.final_norm) {
    norm(0, *config().graph.final_norm, residual, last);
  } else {
    std::vector<int64_t> rows(static_cast<size_t>(residual.rows));
    std::iota(rows.begin(), rows.end(), 0);
    gather(residual, rows, last);
  }
  if (config().embedding_size == 0) return;
  out.resize(residual.rows, config().embedding_size, sizeof(float));
  const Product product{view(model_.embedding_out), out.row<float>(0)};
  model::multiply(normed.row<float>(0), residual.rows, {&product, 1});
}

void finish_logits(const ModelConfig& config, float* logits, int64_t n) {
  if (config.logit_factor != 1.0F) {
    for (int64_t i = 0; i < n; ++i) logits[i] *= config.logit_factor;
  }
  if (const float cap = config.logit_softcap; cap != 0) {
    for (int64_t i = 0; i < n; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
  }
}

void FloatArithmetic::head_product(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  multiply_block(view(model_.head), first, count, normed.row<float>(0), normed.cols, normed.rows, logits,
                 count);
}

void FloatArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  head_product(normed, first, count, logits);
  finish_logits(logits, normed.rows * count);
}

Bf16Arithmetic::Bf16Arithmetic(const Model& model, int64_t max_positions, Bf16Kernel kernel)
    : FloatArithmetic(model, max_positions), kernel_(kernel) {}

void Bf16Arithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  multiply_bf16(kernel_, in.row<float>(0), in.rows, products(layer, in.rows, targets));
}

void Bf16Arithmetic::expert_linear(int64_t layer, const Tensor& in, const Routing& routing,
                                   std::span<const Target> targets) const {
  multiply_rows_bf16(kernel_, expert_products(layer, in, routing, targets));
}

void Bf16Arithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  multiply_block_bf16(kernel_, view(model().head), first, count, normed.row<float>(0), normed.cols,
                      normed.rows, logits, count);
  finish_logits(logits, normed.rows * count);
}

}  // namespace qeval::model
