#include "model/float_arithmetic.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "model/kernels/gemm.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

// Rows per task of the row-wise operations: enough work to outweigh a task's start.
constexpr int64_t kRowGrain = 16;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

template <typename Body>
void for_each_row(int64_t rows, const Body& body) {
  parallel_ranges(rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) body(r);
  });
}

}  // namespace

std::unique_ptr<Arithmetic> make_float_arithmetic(const Model& model, int64_t max_positions) {
  return std::make_unique<FloatArithmetic>(model, max_positions);
}

FloatArithmetic::FloatArithmetic(const Model& model, int64_t max_positions)
    : model_(model), rotary_(model.config, max_positions) {}

const LinearWeights& projection_weights(const LayerWeights& block, Projection projection) {
  switch (projection) {
    case Projection::q:
      return block.q;
    case Projection::k:
      return block.k;
    case Projection::v:
      return block.v;
    case Projection::o:
      return block.o;
    case Projection::gate:
      return block.gate;
    case Projection::up:
      return block.up;
    case Projection::down:
      break;
  }
  return block.down;
}

const LinearWeights& FloatArithmetic::weights(int64_t layer, Projection projection) const {
  return projection_weights(model_.layers[static_cast<size_t>(layer)], projection);
}

void FloatArithmetic::embed(std::span<const int32_t> tokens, Tensor& residual) const {
  const int64_t width = config().hidden_size;
  residual.resize(static_cast<int64_t>(tokens.size()), width, sizeof(float));
  // Gemma multiplies by √hidden_size rounded to the weights' type; in float32 that is float32.
  const float scale = config().scale_embedding ? std::sqrt(static_cast<float>(width)) : 1.0F;
  for_each_row(residual.rows, [&](int64_t r) {
    auto* row = residual.row<float>(r);
    model_.embedding.decode_rows(tokens[static_cast<size_t>(r)], 1, row);
    if (config().scale_embedding) {
      for (int64_t i = 0; i < width; ++i) row[i] *= scale;
    }
  });
}

void FloatArithmetic::norm(int64_t layer, NormPoint point, const Tensor& residual, Tensor& out) const {
  const NormWeights& w = point == NormPoint::final ? model_.final_norm
                         : point == NormPoint::input
                             ? model_.layers[static_cast<size_t>(layer)].input_norm
                             : model_.layers[static_cast<size_t>(layer)].post_attention_norm;
  const int64_t n = residual.cols;
  out.resize(residual.rows, n, sizeof(float));
  const Kernels& kernel = kernels();
  const auto eps = static_cast<float>(config().norm_eps);
  const bool without_eps = config().l2norm_as_rmsnorm && point != NormPoint::final;
  for_each_row(residual.rows, [&](int64_t r) {
    const auto* x = residual.row<float>(r);
    auto* y = out.row<float>(r);
    if (config().norm == NormKind::layer) {
      kernel.layer_norm(x, w.weight.data(), w.bias.empty() ? nullptr : w.bias.data(), eps, n, y);
    } else if (without_eps) {
      kernel.l2_norm(x, w.weight.data(), n, y);
    } else {
      kernel.rms_norm(x, w.weight.data(), eps, n, y);
    }
  });
}

std::vector<Product> FloatArithmetic::products(int64_t layer, int64_t rows,
                                               std::span<const Target> targets) const {
  std::vector<Product> products;
  for (const Target& target : targets) {
    const LinearWeights& w = weights(layer, target.projection);
    target.out->resize(rows, w.weight.rows, sizeof(float));
    products.push_back({view(w), target.out->row<float>(0)});
  }
  return products;
}

void FloatArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  model::multiply(in.row<float>(0), in.rows, products(layer, in.rows, targets));
}

void FloatArithmetic::rotate(int64_t, Projection, std::span<const int32_t> positions, Tensor& heads) const {
  const int64_t d = config().head_dim;
  const Kernels& kernel = kernels();
  for_each_row(heads.rows, [&](int64_t r) {
    const int64_t position = positions[static_cast<size_t>(r)];
    assert(position < rotary_.positions());
    for (int64_t h = 0; h < heads.cols; h += d) {
      kernel.rotate(heads.row<float>(r) + h, rotary_.cosines(position), rotary_.sines(position),
                    rotary_.half());
    }
  });
}

int64_t FloatArithmetic::value_stride() const {
  return round_up(config().head_dim, kernels().panel);
}

int64_t FloatArithmetic::kv_bytes(int64_t tokens) const {
  const int64_t keys = round_up(tokens, kernels().panel) * config().head_dim;
  const int64_t values = tokens * value_stride();
  return config().num_kv_heads * (keys + values) * static_cast<int64_t>(sizeof(float));
}

void FloatArithmetic::store_kv(int64_t, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                               const KvBlock& block, int64_t at) const {
  const int64_t d = config().head_dim;
  const int64_t panel = kernels().panel;
  const int64_t stride = value_stride();
  const int64_t key_size = round_up(block.capacity, panel) * d;
  const int64_t head_size = key_size + block.capacity * stride;
  for (int64_t h = 0; h < config().num_kv_heads; ++h) {
    float* keys = reinterpret_cast<float*>(block.data) + h * head_size;
    float* values = keys + key_size;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t token = at + t;
      const float* key = k.row<float>(first_row + t) + h * d;
      float* column = keys + token / panel * panel * d + token % panel;
      if (token % panel ==
          0) {  // columns of the panel not yet written are read, and their scores thrown away
        std::memset(column, 0, static_cast<size_t>(panel * d) * sizeof(float));
      }
      for (int64_t i = 0; i < d; ++i) column[i * panel] = key[i];
      float* value = values + token * stride;
      std::memcpy(value, v.row<float>(first_row + t) + h * d, static_cast<size_t>(d) * sizeof(float));
      std::memset(value + d, 0, static_cast<size_t>(stride - d) * sizeof(float));
    }
  }
}

int64_t FloatArithmetic::score_stride(const AttentionTile& tile) const {
  return tile.key_count;
}

void FloatArithmetic::score_keys(const AttentionTile& tile, const Tensor& q, int64_t keys) const {
  const int64_t d = config().head_dim;
  const int64_t panel = kernels().panel;
  const int64_t rows = tile.query_count * group();
  const int64_t stride = score_stride(tile);
  tile.scratch.resize(static_cast<size_t>(rows * d) * sizeof(float));
  tile.scores.resize(static_cast<size_t>(rows * stride) * sizeof(float));
  auto* queries = tile.scratch.as<float>();
  for (int64_t i = 0; i < tile.query_count; ++i) {
    // The heads of a group stand side by side in a row of q.
    std::memcpy(queries + i * group() * d, q.row<float>(tile.first_row + i) + tile.kv_head * group() * d,
                static_cast<size_t>(group() * d) * sizeof(float));
  }
  int64_t position = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length, keys - position);
    if (count <= 0) break;
    const int64_t key_size = round_up(piece.capacity, panel) * d;
    const float* k = reinterpret_cast<const float*>(piece.data) +
                     tile.kv_head * (key_size + piece.capacity * value_stride());
    kernels().gemm({.m = rows,
                    .n = count,
                    .k = d,
                    .a = queries,
                    .lda = d,
                    .b = k,
                    .ldb = panel,
                    .panel_stride = panel * d,
                    .c = tile.scores.as<float>() + position,
                    .ldc = stride});
    position += piece.length;
  }
}

void FloatArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  score_keys(tile, q, visible_keys(tile));
}

void FloatArithmetic::softmax(const AttentionTile& tile) const {
  const float scale = 1.0F / std::sqrt(static_cast<float>(config().head_dim));
  const int64_t stride = score_stride(tile);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const int64_t visible = tile.first_position + i + 1;
    for (int64_t g = 0; g < group(); ++g) {
      float* row = tile.scores.as<float>() + (i * group() + g) * stride;
      kernels().softmax(row, visible, scale);
      std::fill(row + visible, row + visible_keys(tile), 0.0F);
    }
  }
}

void FloatArithmetic::mix(const AttentionTile& tile, Tensor& out) const {
  const int64_t d = config().head_dim;
  const int64_t panel = kernels().panel;
  const int64_t rows = tile.query_count * group();
  const int64_t keys = visible_keys(tile);
  tile.scratch.resize(static_cast<size_t>(rows * d) * sizeof(float));
  auto* mixed = tile.scratch.as<float>();
  int64_t position = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length, keys - position);
    if (count <= 0) break;
    const int64_t key_size = round_up(piece.capacity, panel) * d;
    const float* v = reinterpret_cast<const float*>(piece.data) +
                     tile.kv_head * (key_size + piece.capacity * value_stride()) + key_size;
    kernels().gemm({.m = rows,
                    .n = d,
                    .k = count,
                    .a = tile.scores.as<float>() + position,
                    .lda = score_stride(tile),
                    .b = v,
                    .ldb = value_stride(),
                    .panel_stride = panel,
                    .c = mixed,
                    .ldc = d,
                    .accumulate = position > 0});
    position += piece.length;
  }
  for (int64_t i = 0; i < tile.query_count; ++i) {
    std::memcpy(out.row<float>(tile.first_row + i) + tile.kv_head * group() * d, mixed + i * group() * d,
                static_cast<size_t>(group() * d) * sizeof(float));
  }
}

void FloatArithmetic::shape_mixed(int64_t rows, Tensor& out) const {
  out.resize(rows, config().num_heads * config().head_dim, sizeof(float));
}

void FloatArithmetic::add(int64_t, Projection, const Tensor& update, Tensor& residual) const {
  for_each_row(residual.rows, [&](int64_t r) {
    kernels().add(update.row<float>(r), residual.cols, residual.row<float>(r));
  });
}

void FloatArithmetic::activate(int64_t, Tensor& gate) const {
  for_each_row(gate.rows, [&](int64_t r) {
    auto* row = gate.row<float>(r);
    switch (config().activation) {
      case Activation::silu:
        kernels().silu(row, gate.cols, row);
        break;
      case Activation::gelu_tanh:
        kernels().gelu_tanh(row, gate.cols, row);
        break;
      case Activation::gelu_erf:
        kernels().gelu_erf(row, gate.cols, row);
    }
  });
}

void FloatArithmetic::multiply(int64_t, const Tensor& up, Tensor& gate) const {
  for_each_row(gate.rows,
               [&](int64_t r) { kernels().multiply(up.row<float>(r), gate.cols, gate.row<float>(r)); });
}

void FloatArithmetic::gather(const Tensor& residual, std::span<const int64_t> rows, Tensor& out) const {
  out.resize(static_cast<int64_t>(rows.size()), residual.cols, sizeof(float));
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out.row<float>(static_cast<int64_t>(i)), residual.row<float>(rows[i]),
                static_cast<size_t>(residual.cols) * sizeof(float));
  }
}

void FloatArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  multiply_block(view(model_.head), first, count, normed.row<float>(0), normed.cols, normed.rows, logits,
                 count);
}

Bf16Arithmetic::Bf16Arithmetic(const Model& model, int64_t max_positions, Bf16Kernel kernel)
    : FloatArithmetic(model, max_positions), kernel_(kernel) {}

void Bf16Arithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  multiply_bf16(kernel_, in.row<float>(0), in.rows, products(layer, in.rows, targets));
}

void Bf16Arithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  multiply_block_bf16(kernel_, view(model().head), first, count, normed.row<float>(0), normed.cols,
                      normed.rows, logits, count);
}

}  // namespace qeval::model
