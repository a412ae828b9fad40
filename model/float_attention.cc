// Attention of float arithmetic, and where its keys and values are kept.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/float_arithmetic.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Keys and values that all rows of a tile are multiplied by before the next ones, so that memory is read
// once. The former are two panels, which stay in the first-level cache; values have longer stretches, since
// every one loads and stores the sums.
constexpr int64_t kKeysAtATime = 64, kValuesAtATime = 256;

/// Where things are in one head's share of a KvBlock, in numbers.
struct HeadLayout {
  int64_t panel, keys, value_stride, size;

  HeadLayout(const AttentionOp& op, int64_t capacity)
      : panel(kernels().panel),
        keys(round_up(capacity, panel) * op.head_dim),
        value_stride(round_up(op.value_dim, panel)),
        size(keys + capacity * value_stride) {}
};

}  // namespace

int64_t FloatArithmetic::state_offset(int64_t layer, int64_t tokens) const {
  const auto* op = config().graph.block(layer).find<AttentionOp>();
  if (op == nullptr || op->kv_from != 0) return 0;
  return op->kv_heads * HeadLayout(*op, tokens).size * static_cast<int64_t>(sizeof(float));
}

int64_t FloatArithmetic::kv_bytes(int64_t layer, int64_t tokens) const {
  return state_offset(layer, tokens) +
         config().graph.block(layer).state_size * static_cast<int64_t>(sizeof(float));
}

bool FloatArithmetic::lends_kv(int64_t layer) const {
  const auto* op = config().graph.block(layer).find<AttentionOp>();
  return op != nullptr && op->kv_lent;
}

void FloatArithmetic::store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row,
                               int64_t count, const KvBlock& block, int64_t at) const {
  const AttentionOp& op = config().graph.block(layer).attention();
  const HeadLayout head(op, block.capacity);
  const int64_t d = op.head_dim, e = op.value_dim, panel = head.panel;
  for (int64_t h = 0; h < op.kv_heads; ++h) {
    float* keys = reinterpret_cast<float*>(block.data) + h * head.size;
    float* values = keys + head.keys;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t token = at + t;
      const float* key = k.row<float>(first_row + t) + h * d;
      float* column = keys + token / panel * panel * d + token % panel;
      if (token % panel ==
          0) {  // columns of the panel not yet written are read, and their scores thrown away
        std::memset(column, 0, static_cast<size_t>(panel * d) * sizeof(float));
      }
      for (int64_t i = 0; i < d; ++i) column[i * panel] = key[i];
      float* value = values + token * head.value_stride;
      std::memcpy(value, v.row<float>(first_row + t) + h * e, static_cast<size_t>(e) * sizeof(float));
      std::memset(value + e, 0, static_cast<size_t>(head.value_stride - e) * sizeof(float));
    }
  }
}

void FloatArithmetic::score_keys(const AttentionTile& tile, const Tensor& q, int64_t keys) const {
  const int64_t d = tile.op->head_dim, group = tile.op->group();
  const int64_t rows = tile.query_count * group;
  const int64_t stride = score_stride(tile);
  tile.scratch.resize(static_cast<size_t>(rows * d) * sizeof(float));
  tile.scores.resize(static_cast<size_t>(rows * stride) * sizeof(float));
  auto* queries = tile.scratch.as<float>();
  for (int64_t i = 0; i < tile.query_count; ++i) {
    // The heads of a group stand side by side in a row of q.
    std::memcpy(queries + i * group * d, q.row<float>(tile.first_row + i) + tile.kv_head * group * d,
                static_cast<size_t>(group * d) * sizeof(float));
  }
  int64_t column = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length - piece.skip, keys - column);
    if (count <= 0) break;
    const HeadLayout head(*tile.op, piece.capacity);
    const float* k = reinterpret_cast<const float*>(piece.data) + tile.kv_head * head.size + piece.skip * d;
    for (int64_t first = 0; first < count; first += kKeysAtATime) {
      kernels().gemm({.m = rows,
                      .n = std::min(kKeysAtATime, count - first),
                      .k = d,
                      .a = queries,
                      .lda = d,
                      .b = k + first * d,
                      .ldb = head.panel,
                      .panel_stride = head.panel * d,
                      .c = tile.scores.as<float>() + column + first,
                      .ldc = stride});
    }
    column += piece.length - piece.skip;
  }
}

void FloatArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  score_keys(tile, q, tile.last_end());
}

void FloatArithmetic::cap_scores(const AttentionOp& op, float* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) row[i] = op.softcap * std::tanh(row[i] * op.scale / op.softcap);
}

void FloatArithmetic::softmax_with_sink(float* row, int64_t n, float scale, float sink) {
  const float largest = *std::max_element(row, row + n) * scale;
  kernels().softmax(row, n, scale);
  // The largest probability is 1 / Σ e^(s − largest).
  const float share = *std::max_element(row, row + n);
  const float rest = 1.0F / (1.0F + std::exp(sink - largest) * share);
  for (int64_t i = 0; i < n; ++i) row[i] *= rest;
}

void FloatArithmetic::softmax(const AttentionTile& tile) const {
  const AttentionOp& op = *tile.op;
  const int64_t stride = score_stride(tile);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const int64_t begin = tile.begin(i), end = tile.end(i);
    for (int64_t g = 0; g < op.group(); ++g) {
      float* row = tile.scores.as<float>() + (i * op.group() + g) * stride;
      if (op.softcap != 0) cap_scores(op, row + begin, end - begin);
      const float scale = op.softcap != 0 ? 1.0F : op.scale;
      if (op.sinks) {
        softmax_with_sink(row + begin, end - begin, scale, sink(tile, g));
      } else {
        kernels().softmax(row + begin, end - begin, scale);
      }
      std::fill(row, row + begin, 0.0F);
      std::fill(row + end, row + tile.last_end(), 0.0F);
    }
  }
}

void FloatArithmetic::mix(const AttentionTile& tile, Tensor& out) const {
  const int64_t e = tile.op->value_dim, group = tile.op->group();
  const int64_t rows = tile.query_count * group;
  const int64_t keys = tile.last_end();
  tile.scratch.resize(static_cast<size_t>(rows * e) * sizeof(float));
  auto* mixed = tile.scratch.as<float>();
  int64_t column = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length - piece.skip, keys - column);
    if (count <= 0) break;
    const HeadLayout head(*tile.op, piece.capacity);
    const float* v = reinterpret_cast<const float*>(piece.data) + tile.kv_head * head.size + head.keys +
                     piece.skip * head.value_stride;
    for (int64_t first = 0; first < count; first += kValuesAtATime) {
      kernels().gemm({.m = rows,
                      .n = e,
                      .k = std::min(kValuesAtATime, count - first),
                      .a = tile.scores.as<float>() + column + first,
                      .lda = score_stride(tile),
                      .b = v + first * head.value_stride,
                      .ldb = head.value_stride,
                      .panel_stride = head.panel,
                      .c = mixed,
                      .ldc = e,
                      .accumulate = column + first > 0});
    }
    column += piece.length - piece.skip;
  }
  for (int64_t i = 0; i < tile.query_count; ++i) {
    std::memcpy(out.row<float>(tile.first_row + i) + tile.kv_head * group * e, mixed + i * group * e,
                static_cast<size_t>(group * e) * sizeof(float));
  }
}

void FloatArithmetic::shape_mixed(const AttentionOp& op, int64_t rows, Tensor& out) const {
  out.resize(rows, op.heads * op.value_dim, sizeof(float));
}

}  // namespace qeval::model
