// Key/value cache, scores, softmax and mix in integers.

#include <algorithm>
#include <cstring>

#include "quant/integer/integer_arithmetic.h"
#include "quant/integer/run/kernels.h"
#include "quant/integer/run/linear.h"
#include "quant/integer/run/rowwise.h"

namespace qeval::quant {

using model::AttentionTile;
using model::KvPiece;
using model::Tensor;

namespace {

// Keys whose products wait for their requantization at a time.
constexpr int64_t kKeyBlock = 8 * kPanel;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Where things are in one head's share of a KvBlock, in bytes.
struct HeadLayout {
  int64_t key_panel_codes, value_panel_codes;
  int64_t sums, values, size;

  HeadLayout(int64_t capacity, int64_t head_dim, int64_t key_bytes, int64_t value_bytes)
      : key_panel_codes(round_up(head_dim, 2) * kPanel),
        value_panel_codes(round_up(capacity, 2) * kPanel),
        sums(round_up(capacity, kPanel) * round_up(head_dim, 2) * key_bytes),
        values(sums + round_up(capacity, kPanel) * static_cast<int64_t>(sizeof(int32_t))),
        size(values + round_up(head_dim, kPanel) / kPanel * value_panel_codes * value_bytes) {}
};

HeadLayout layout(const IntegerModel& model, const IntegerAttention& attention, int64_t capacity) {
  return {capacity, model.head_dim, attention.narrow_k ? 1 : 2, attention.narrow_v ? 1 : 2};
}

template <typename Code>
void store_key(const int16_t* key, int64_t d, int32_t offset, int64_t token, std::byte* base,
               const HeadLayout& at) {
  Code* panel = reinterpret_cast<Code*>(base) + token / kPanel * at.key_panel_codes;
  const int64_t column = token % kPanel;
  int32_t sum = 0;
  for (int64_t i = 0; i < round_up(d, 2); ++i) {
    const int32_t code = i < d ? key[i] - offset : 0;
    panel[i / 2 * 2 * kPanel + 2 * column + i % 2] = static_cast<Code>(code);
    sum += code;
  }
  reinterpret_cast<int32_t*>(base + at.sums)[token] = sum;
}

template <typename Code>
void store_value(const int16_t* value, int64_t d, int32_t offset, int64_t token, std::byte* base,
                 const HeadLayout& at) {
  Code* row = reinterpret_cast<Code*>(base + at.values) + token / 2 * 2 * kPanel + token % 2;
  for (int64_t j = 0; j < round_up(d, kPanel); ++j) {
    row[j / kPanel * at.value_panel_codes + 2 * (j % kPanel)] =
        static_cast<Code>(j < d ? value[j] - offset : 0);
  }
}

template <typename Code>
void add_value(const std::byte* base, int64_t d, int64_t token, const HeadLayout& at, int64_t* sums) {
  const Code* row = reinterpret_cast<const Code*>(base + at.values) + token / 2 * 2 * kPanel + token % 2;
  for (int64_t j = 0; j < d; ++j) sums[j] += row[j / kPanel * at.value_panel_codes + 2 * (j % kPanel)];
}

int64_t visible_keys(const AttentionTile& tile) {
  return tile.first_position + tile.query_count;
}

/// Requantizes the products of one block of keys.
template <typename Sum>
void finish_scores(const IntegerAttention& a, const Sum* sums, int64_t rows, int64_t keys,
                   const int64_t* query_terms, const int32_t* key_sums, int16_t* out, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t sum =
          sums[r * kKeyBlock + j] + query_terms[r] - static_cast<int64_t>(a.q_zero_point) * key_sums[j];
      out[r * stride + j] = requantize(sum, a.score_factor, a.score_codes);
    }
  }
}

}  // namespace

int64_t IntegerArithmetic::kv_bytes(int64_t tokens) const {
  int64_t largest = 0;
  for (const IntegerLayer& layer : model_.layers) {
    largest = std::max(largest, layout(model_, layer.attention, tokens).size);
  }
  return model_.num_kv_heads * largest;
}

void IntegerArithmetic::store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row,
                                 int64_t count, const model::KvBlock& block, int64_t at) const {
  const IntegerAttention& a = layer_at(layer).attention;
  const HeadLayout head = layout(model_, a, block.capacity);
  const int64_t d = model_.head_dim;
  for (int64_t h = 0; h < model_.num_kv_heads; ++h) {
    std::byte* base = block.data + h * head.size;
    for (int64_t t = 0; t < count; ++t) {
      const int16_t* key = k.row<int16_t>(first_row + t) + h * d;
      const int16_t* value = v.row<int16_t>(first_row + t) + h * d;
      if (a.narrow_k) {
        store_key<int8_t>(key, d, a.k_offset, at + t, base, head);
      } else {
        store_key<int16_t>(key, d, a.k_offset, at + t, base, head);
      }
      if (a.narrow_v) {
        store_value<int8_t>(value, d, a.v_offset, at + t, base, head);
      } else {
        store_value<int16_t>(value, d, a.v_offset, at + t, base, head);
      }
    }
  }
}

void IntegerArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const IntegerKernels& kernel = integer_kernels();
  const int64_t d = model_.head_dim;
  const int64_t group = model_.group();
  const int64_t rows = tile.query_count * group;
  const int64_t keys = visible_keys(tile);
  const int64_t stride = tile.key_count;
  const bool narrow = a.narrow_q && a.narrow_k;
  const auto gemm = narrow ? kernel.gemm_narrow : a.narrow_k ? kernel.gemm_wide : kernel.gemm_wide16;
  tile.scores.resize(static_cast<size_t>(rows * stride) * sizeof(int16_t));
  // Scratch: the products of a block, the queries' terms, the queries.
  const int64_t product_bytes = rows * kKeyBlock * static_cast<int64_t>(sizeof(int64_t));
  const int64_t term_bytes = rows * static_cast<int64_t>(sizeof(int64_t));
  tile.scratch.resize(static_cast<size_t>(product_bytes + term_bytes) +
                      static_cast<size_t>(rows * d) * sizeof(int16_t));
  auto* terms = reinterpret_cast<int64_t*>(tile.scratch.data() + product_bytes);
  auto* queries = reinterpret_cast<int16_t*>(tile.scratch.data() + product_bytes + term_bytes);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    // The heads of a group stand side by side in a row of q.
    std::memcpy(queries + i * group * d, q.row<int16_t>(tile.first_row + i) + tile.kv_head * group * d,
                static_cast<size_t>(group * d) * sizeof(int16_t));
  }
  row_sums(queries, rows, d, terms);
  for (int64_t r = 0; r < rows; ++r) {
    terms[r] = a.k_zero_point * (d * a.q_zero_point - terms[r]);
  }
  int64_t position = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length, keys - position);
    if (count <= 0) break;
    const HeadLayout head = layout(model_, a, piece.capacity);
    const std::byte* base = piece.data + tile.kv_head * head.size;
    const auto* key_sums = reinterpret_cast<const int32_t*>(base + head.sums);
    for (int64_t first = 0; first < count; first += kKeyBlock) {
      const int64_t block = std::min(kKeyBlock, count - first);
      gemm({.m = rows,
            .n = block,
            .k = d,
            .a = queries,
            .lda = d,
            .b = base + first / kPanel * head.key_panel_codes * (a.narrow_k ? 1 : 2),
            .panel_stride = head.key_panel_codes,
            .c = tile.scratch.data(),
            .ldc = kKeyBlock});
      int16_t* out = tile.scores.as<int16_t>() + position + first;
      if (a.fast_score.usable()) {
        for (int64_t r = 0; r < rows; ++r) {
          kernel.requantize_row({.n = block,
                                 .sums = tile.scratch.as<int32_t>() + r * kKeyBlock,
                                 .base = static_cast<int32_t>(static_cast<uint32_t>(terms[r])),
                                 .weight = key_sums + first,
                                 .weight_factor = a.q_zero_point,
                                 .fast = a.fast_score.view(0),
                                 .uniform = true,
                                 .output = a.score_codes,
                                 .out = out + r * stride});
        }
      } else if (narrow) {
        finish_scores(a, tile.scratch.as<int32_t>(), rows, block, terms, key_sums + first, out, stride);
      } else {
        finish_scores(a, tile.scratch.as<int64_t>(), rows, block, terms, key_sums + first, out, stride);
      }
    }
    position += piece.length;
  }
}

void IntegerArithmetic::softmax(const AttentionTile& tile) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const int64_t keys = visible_keys(tile);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const int64_t visible = tile.first_position + i + 1;
    for (int64_t g = 0; g < model_.group(); ++g) {
      int16_t* row = tile.scores.as<int16_t>() + (i * model_.group() + g) * tile.key_count;
      softmax_row(a, visible, row);
      // Codes of 0 contribute nothing to the products; mix() takes the zero point off visible keys only.
      std::fill(row + visible, row + keys, int16_t{0});
    }
  }
}

void IntegerArithmetic::mix(const AttentionTile& tile, Tensor& out) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const IntegerKernels& kernel = integer_kernels();
  const auto gemm = a.narrow_v ? kernel.gemm_wide : kernel.gemm_wide16;
  const int64_t d = model_.head_dim;
  const int64_t group = model_.group();
  const int64_t rows = tile.query_count * group;
  const int64_t keys = visible_keys(tile);
  const int64_t stride = tile.key_count;
  // Scratch: the products, the sums of the values that a query sees, ones.
  const int64_t product_bytes = rows * d * static_cast<int64_t>(sizeof(int64_t));
  const int64_t sum_bytes = d * static_cast<int64_t>(sizeof(int64_t));
  tile.scratch.resize(static_cast<size_t>(product_bytes + sum_bytes) +
                      static_cast<size_t>(keys) * sizeof(int16_t));
  auto* products = tile.scratch.as<int64_t>();
  auto* value_sums = reinterpret_cast<int64_t*>(tile.scratch.data() + product_bytes);
  auto* ones = reinterpret_cast<int16_t*>(tile.scratch.data() + product_bytes + sum_bytes);
  const int64_t p_zero = a.probability_codes.zero_point;
  std::fill(value_sums, value_sums + d, 0);
  std::fill(ones, ones + keys, int16_t{1});
  int64_t position = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length, keys - position);
    if (count <= 0) break;
    const HeadLayout head = layout(model_, a, piece.capacity);
    const std::byte* base = piece.data + tile.kv_head * head.size;
    gemm({.m = rows,
          .n = d,
          .k = count,
          .a = tile.scores.as<int16_t>() + position,
          .lda = stride,
          .b = base + head.values,
          .panel_stride = head.value_panel_codes,
          .c = products,
          .ldc = d,
          .accumulate = position > 0});
    // Values before the first query's own position: every query of the tile sees them.
    const int64_t before = std::min(count, tile.first_position - position);
    if (p_zero != 0 && before > 0) {
      gemm({.m = 1,
            .n = d,
            .k = before,
            .a = ones,
            .lda = keys,
            .b = base + head.values,
            .panel_stride = head.value_panel_codes,
            .c = value_sums,
            .ldc = d,
            .accumulate = true});
    }
    position += piece.length;
  }

  size_t piece_index = 0;
  int64_t piece_start = 0;
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const int64_t own = tile.first_position + i;
    while (own >= piece_start + tile.path[piece_index].length) {
      piece_start += tile.path[piece_index++].length;
    }
    const KvPiece& piece = tile.path[piece_index];
    const HeadLayout head = layout(model_, a, piece.capacity);
    const std::byte* base = piece.data + tile.kv_head * head.size;
    if (a.narrow_v) {
      add_value<int8_t>(base, d, own - piece_start, head, value_sums);
    } else {
      add_value<int16_t>(base, d, own - piece_start, head, value_sums);
    }
    for (int64_t g = 0; g < group; ++g) {
      const int64_t r = i * group + g;
      int64_t probability_sum = 0;
      row_sums(tile.scores.as<int16_t>() + r * stride, 1, own + 1, &probability_sum);
      const int64_t row_term = a.v_zero_point * ((own + 1) * p_zero - probability_sum);
      int16_t* target = out.row<int16_t>(tile.first_row + i) + (tile.kv_head * group + g) * d;
      for (int64_t j = 0; j < d; ++j) {
        const int64_t sum = products[r * d + j] + row_term - p_zero * value_sums[j];
        target[j] = requantize(sum, a.mix_factor, a.mix_codes);
      }
    }
  }
}

void IntegerArithmetic::shape_mixed(int64_t rows, Tensor& out) const {
  out.resize(rows, model_.num_heads * model_.head_dim, sizeof(int16_t));
}

}  // namespace qeval::quant
