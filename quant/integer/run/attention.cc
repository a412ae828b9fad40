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

int64_t visible_keys(const AttentionTile& tile) {
  return tile.first_position + tile.query_count;
}

/// Totals that need 64 bits to codes, one at a time.
void requantize_wide(const Rescale& factor, const CodeRange& codes, int64_t n, const int64_t* sums,
                     int64_t base, const int64_t* constant, int16_t* out) {
  for (int64_t j = 0; j < n; ++j) out[j] = requantize(sums[j] + base + constant[j], factor, codes);
}

/// Shares of a thread's scratch, one after the other at 64 bytes each.
class Scratch {
 public:
  template <typename T>
  int64_t add(int64_t count) {
    const int64_t at = size_;
    size_ = round_up(size_ + count * static_cast<int64_t>(sizeof(T)), 64);
    return at;
  }
  std::byte* allocate(AlignedBuffer& buffer) const {
    buffer.resize(static_cast<size_t>(size_));
    return buffer.data();
  }

 private:
  int64_t size_ = 0;
};

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
  parallel_tasks(model_.num_kv_heads, [&](int64_t h) {
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
  });
}

// Score of query r and key j: Σ (q − q₀)(k − k₀) = Σ q·k + k₀·(d·q₀ − Σ q) − q₀·Σ k, codes throughout.
void IntegerArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const IntegerKernels& kernel = integer_kernels();
  const int64_t d = model_.head_dim;
  const int64_t group = model_.group();
  const int64_t rows = tile.query_count * group;
  const int64_t keys = visible_keys(tile);
  const int64_t stride = tile.key_count;
  const bool fast = a.narrow_k && a.score_factor.fast();
  const auto gemm = fast         ? a.narrow_q ? kernel.gemm_narrow : kernel.gemm_modular
                    : a.narrow_k ? kernel.gemm_wide
                                 : kernel.gemm_wide16;
  // After the codes, the sums of each row's: softmax() leaves them for mix().
  tile.scores.resize(static_cast<size_t>(round_up(rows * stride, 8)) * sizeof(int16_t) +
                     static_cast<size_t>(rows) * sizeof(int64_t));
  Scratch shares;
  const int64_t products_at = shares.add<int64_t>(rows * kKeyBlock);
  const int64_t constants_at = shares.add<int64_t>(kKeyBlock);
  const int64_t terms_at = shares.add<int64_t>(rows);
  const int64_t bases_at = shares.add<int32_t>(rows);
  const int64_t queries_at = shares.add<int16_t>(rows * d);
  std::byte* scratch = shares.allocate(tile.scratch);
  std::byte* products = scratch + products_at;
  std::byte* constants = scratch + constants_at;
  auto* terms = reinterpret_cast<int64_t*>(scratch + terms_at);
  auto* queries = reinterpret_cast<int16_t*>(scratch + queries_at);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    // The heads of a group stand side by side in a row of q.
    std::memcpy(queries + i * group * d, q.row<int16_t>(tile.first_row + i) + tile.kv_head * group * d,
                static_cast<size_t>(group * d) * sizeof(int16_t));
  }
  row_sums(queries, rows, d, terms);
  auto* bases = reinterpret_cast<int32_t*>(scratch + bases_at);  // the same modulo 2^32
  for (int64_t r = 0; r < rows; ++r) {
    terms[r] = a.k_zero_point * (d * a.q_zero_point - terms[r]);
    bases[r] = modulo32(terms[r]);
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
            .c = products,
            .ldc = kKeyBlock});
      int16_t* out = tile.scores.as<int16_t>() + position + first;
      if (fast) {
        auto* key_terms = reinterpret_cast<int32_t*>(constants);
        const auto q_zero = static_cast<uint32_t>(a.q_zero_point);
        for (int64_t j = 0; j < block; ++j) {
          key_terms[j] = static_cast<int32_t>(0U - q_zero * static_cast<uint32_t>(key_sums[first + j]));
        }
        kernel.requantize_uniform({.rows = rows,
                                   .n = block,
                                   .sums = reinterpret_cast<const int32_t*>(products),
                                   .ld = kKeyBlock,
                                   .bases = bases,
                                   .constant = key_terms,
                                   .factor = a.score_factor,
                                   .output = a.score_codes},
                                  out, stride);
      } else {
        auto* key_terms = reinterpret_cast<int64_t*>(constants);
        for (int64_t j = 0; j < block; ++j) {
          key_terms[j] = -static_cast<int64_t>(a.q_zero_point) * key_sums[first + j];
        }
        for (int64_t r = 0; r < rows; ++r) {
          requantize_wide(a.score_factor, a.score_codes, block,
                          reinterpret_cast<const int64_t*>(products) + r * kKeyBlock, terms[r], key_terms,
                          out + r * stride);
        }
      }
    }
    position += piece.length;
  }
}

namespace {

/// Behind the scores of a tile: the sum of each row's probability codes.
int64_t* probability_sums(const AttentionTile& tile, int64_t rows) {
  return reinterpret_cast<int64_t*>(tile.scores.as<int16_t>() + round_up(rows * tile.key_count, 8));
}

/// Whether a probability of 0 is among the numbers that a code's 16 bits hold; not where a range excludes 0.
bool zero_is_a_code(const IntegerAttention& attention) {
  const int32_t zero = attention.probability_codes.zero_point;
  return zero >= INT16_MIN && zero <= INT16_MAX;
}

}  // namespace

void IntegerArithmetic::softmax(const AttentionTile& tile) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const int64_t keys = visible_keys(tile);
  const int64_t rows = tile.query_count * model_.group();
  const auto hidden = static_cast<int16_t>(zero_is_a_code(a) ? a.probability_codes.zero_point : 0);
  int64_t* sums = probability_sums(tile, rows);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t visible = tile.first_position + r / model_.group() + 1;
    int16_t* row = tile.scores.as<int16_t>() + r * tile.key_count;
    sums[r] = softmax_row(a, visible, row) + hidden * (keys - visible);
    std::fill(row + visible, row + keys, hidden);
  }
}

// Mix of row r and channel j: Σ (p − p₀)(v − v₀) = Σ p·v + v₀·(n·p₀ − Σ p) − p₀·Σ v over n keys: all of the
// tile, hidden ones having p = p₀, or where no code says that, those that the query sees and p = 0 elsewhere.
void IntegerArithmetic::mix(const AttentionTile& tile, Tensor& out) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const IntegerKernels& kernel = integer_kernels();
  const int64_t d = model_.head_dim;
  const int64_t group = model_.group();
  const int64_t rows = tile.query_count * group;
  const int64_t keys = visible_keys(tile);
  const int64_t stride = tile.key_count;
  const bool fast = a.narrow_v && a.mix_factor.fast();
  const auto gemm = fast ? kernel.gemm_modular : a.narrow_v ? kernel.gemm_wide : kernel.gemm_wide16;
  const int64_t p_zero = a.probability_codes.zero_point;
  const bool shared = zero_is_a_code(a);
  const int64_t masks = shared ? 1 : tile.query_count;
  Scratch shares;
  const int64_t products_at = shares.add<int64_t>(rows * d);
  const int64_t value_sums_at = shares.add<int64_t>(masks * d);
  const int64_t mask_at = shares.add<int16_t>(masks * keys);
  const int64_t bases_at = shares.add<int32_t>(group);
  std::byte* scratch = shares.allocate(tile.scratch);
  std::byte* products = scratch + products_at;
  std::byte* value_sums = scratch + value_sums_at;
  auto* mask = reinterpret_cast<int16_t*>(scratch + mask_at);
  auto* bases = reinterpret_cast<int32_t*>(scratch + bases_at);
  const auto seen = [&](int64_t query) { return shared ? keys : tile.first_position + query + 1; };
  for (int64_t i = 0; i < masks; ++i) {
    std::fill(mask + i * keys, mask + i * keys + seen(i), int16_t{1});
    std::fill(mask + i * keys + seen(i), mask + (i + 1) * keys, int16_t{0});
  }
  int64_t position = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length, keys - position);
    if (count <= 0) break;
    const HeadLayout head = layout(model_, a, piece.capacity);
    const std::byte* base = piece.data + tile.kv_head * head.size;
    IntegerGemm product{.m = rows,
                        .n = d,
                        .k = count,
                        .a = tile.scores.as<int16_t>() + position,
                        .lda = stride,
                        .b = base + head.values,
                        .panel_stride = head.value_panel_codes,
                        .c = products,
                        .ldc = d,
                        .accumulate = position > 0};
    gemm(product);
    product.m = masks;
    product.a = mask + position;
    product.lda = keys;
    product.c = value_sums;
    gemm(product);
    position += piece.length;
  }
  for (int64_t j = 0; j < masks * d; ++j) {
    if (fast) {
      auto& sum = reinterpret_cast<int32_t*>(value_sums)[j];
      sum = modulo32(-p_zero * sum);
    } else {
      reinterpret_cast<int64_t*>(value_sums)[j] *= -p_zero;
    }
  }
  const int64_t* probability_codes = probability_sums(tile, rows);
  for (int64_t query = 0; query < tile.query_count; ++query) {
    const int64_t first = query * group;
    const int64_t values = shared ? 0 : query * d;
    int16_t* target = out.row<int16_t>(tile.first_row + query) + tile.kv_head * group * d;
    const auto term = [&](int64_t r) {
      return a.v_zero_point * (seen(query) * p_zero - probability_codes[first + r]);
    };
    if (fast) {
      for (int64_t r = 0; r < group; ++r) bases[r] = modulo32(term(r));
      kernel.requantize_uniform({.rows = group,
                                 .n = d,
                                 .sums = reinterpret_cast<const int32_t*>(products) + first * d,
                                 .ld = d,
                                 .bases = bases,
                                 .constant = reinterpret_cast<const int32_t*>(value_sums) + values,
                                 .factor = a.mix_factor,
                                 .output = a.mix_codes},
                                target, d);
    } else {
      for (int64_t r = 0; r < group; ++r) {
        requantize_wide(a.mix_factor, a.mix_codes, d,
                        reinterpret_cast<const int64_t*>(products) + (first + r) * d, term(r),
                        reinterpret_cast<const int64_t*>(value_sums) + values, target + r * d);
      }
    }
  }
}

void IntegerArithmetic::shape_mixed(int64_t rows, Tensor& out) const {
  out.resize(rows, model_.num_heads * model_.head_dim, sizeof(int16_t));
}

}  // namespace qeval::quant
