// Key/value cache, scores, softmax and mix in integers.

#include <algorithm>
#include <cstring>

#include "quant/arithmetic/integer/integer_arithmetic.h"
#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/linear.h"
#include "quant/arithmetic/integer/run/rowwise.h"

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

  HeadLayout(int64_t capacity, int64_t head_dim, int64_t value_dim, int64_t key_bytes, int64_t value_bytes)
      : key_panel_codes(round_up(head_dim, 2) * kPanel),
        value_panel_codes(round_up(capacity, 2) * kPanel),
        sums(round_up(capacity, kPanel) * round_up(head_dim, 2) * key_bytes),
        values(sums + round_up(capacity, kPanel) * static_cast<int64_t>(sizeof(int32_t))),
        size(values + round_up(value_dim, kPanel) / kPanel * value_panel_codes * value_bytes) {}
};

HeadLayout layout(const IntegerAttention& attention, int64_t capacity) {
  return {capacity, attention.head_dim, attention.value_dim, attention.narrow_k ? 1 : 2,
          attention.narrow_v ? 1 : 2};
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

/// Calls body(layout, base, skip, column, count) for the pieces of the tile's path that its queries see: the
/// head's share of the piece, and which columns of the tile its `count` tokens from `skip` on are.
template <typename Body>
void for_each_piece(const AttentionTile& tile, const IntegerAttention& attention, const Body& body) {
  const int64_t keys = tile.last_end();
  int64_t column = 0;
  for (const KvPiece& piece : tile.path) {
    const int64_t count = std::min(piece.length - piece.skip, keys - column);
    if (count <= 0) break;
    const HeadLayout head = layout(attention, piece.capacity);
    body(head, piece.data + tile.kv_head * head.size, piece.skip, column, count);
    column += piece.length - piece.skip;
  }
}

/// Totals that need 64 bits to codes, one at a time.
void requantize_wide(const Rescale& factor, const CodeRange& codes, int64_t n, const int64_t* sums,
                     int64_t base, const int64_t* constant, int16_t* out) {
  for (int64_t j = 0; j < n; ++j) out[j] = requantize(sums[j] + base + constant[j], factor, codes);
}

/// Shares of a thread's scratch, one after the other at 64 bytes each.
class ScratchParts {
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

int64_t IntegerArithmetic::kv_bytes(int64_t layer, int64_t tokens) const {
  const IntegerAttention& attention = layer_at(layer).attention;
  return attention.borrows ? 0 : attention.kv_heads * layout(attention, tokens).size;
}

void IntegerArithmetic::store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row,
                                 int64_t count, const model::KvBlock& block, int64_t at) const {
  const IntegerAttention& a = layer_at(layer).attention;
  const HeadLayout head = layout(a, block.capacity);
  const int64_t d = a.head_dim, e = a.value_dim;
  parallel_tasks(a.kv_heads, [&](int64_t h) {
    std::byte* base = block.data + h * head.size;
    for (int64_t t = 0; t < count; ++t) {
      const int16_t* key = k.row<int16_t>(first_row + t) + h * d;
      const int16_t* value = v.row<int16_t>(first_row + t) + h * e;
      if (a.narrow_k) {
        store_key<int8_t>(key, d, a.k_offset, at + t, base, head);
      } else {
        store_key<int16_t>(key, d, a.k_offset, at + t, base, head);
      }
      if (a.narrow_v) {
        store_value<int8_t>(value, e, a.v_offset, at + t, base, head);
      } else {
        store_value<int16_t>(value, e, a.v_offset, at + t, base, head);
      }
    }
  });
}

namespace {

// Score of query r and key j: Σ (q − q₀)(k − k₀) = Σ q·k + k₀·(d·q₀ − Σ q) − q₀·Σ k, codes throughout.

/// What a tile's scores are made of, in the thread's scratch. `terms`: k₀·(d·q₀ − Σ q) of each row, `bases`:
/// the same modulo 2^32.
struct ScoreScratch {
  std::byte* products;   ///< [rows, kKeyBlock] of int32_t or int64_t
  std::byte* constants;  ///< [kKeyBlock] of the same
  int64_t* terms;        ///< [rows]
  int32_t* bases;        ///< [rows]
  int16_t* queries;      ///< [rows, head_dim]

  ScoreScratch(AlignedBuffer& buffer, int64_t rows, int64_t head_dim) {
    ScratchParts shares;
    const int64_t products_at = shares.add<int64_t>(rows * kKeyBlock);
    const int64_t constants_at = shares.add<int64_t>(kKeyBlock);
    const int64_t terms_at = shares.add<int64_t>(rows);
    const int64_t bases_at = shares.add<int32_t>(rows);
    const int64_t queries_at = shares.add<int16_t>(rows * head_dim);
    std::byte* scratch = shares.allocate(buffer);
    products = scratch + products_at;
    constants = scratch + constants_at;
    terms = reinterpret_cast<int64_t*>(scratch + terms_at);
    bases = reinterpret_cast<int32_t*>(scratch + bases_at);
    queries = reinterpret_cast<int16_t*>(scratch + queries_at);
  }
};

/// The tile's queries side by side, and their terms. The heads of a group stand side by side in a row of q.
void gather_queries(const AttentionTile& tile, const Tensor& q, const IntegerAttention& a, int64_t group,
                    int64_t d, const ScoreScratch& scratch) {
  const int64_t rows = tile.query_count * group;
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const size_t bytes = static_cast<size_t>(group * d) * sizeof(int16_t);
    if (a.first &&
        tile.first_position + i == 0) {  // on a grid of its own; it sees one key, whatever the score
      std::memset(scratch.queries + i * group * d, 0, bytes);
      continue;
    }
    std::memcpy(scratch.queries + i * group * d,
                q.row<int16_t>(tile.first_row + i) + tile.kv_head * group * d, bytes);
  }
  row_sums(scratch.queries, rows, d, scratch.terms);
  for (int64_t r = 0; r < rows; ++r) {
    scratch.terms[r] = a.k_zero_point * (d * a.q_zero_point - scratch.terms[r]);
    scratch.bases[r] = modulo32(scratch.terms[r]);
  }
}

/// Products in 32 bits to the scores of n keys with these sums: out [rows, stride].
void requantize_scores(const IntegerAttention& a, int64_t rows, int64_t n, const int32_t* key_sums,
                       const ScoreScratch& scratch, int16_t* out, int64_t stride) {
  auto* key_terms = reinterpret_cast<int32_t*>(scratch.constants);
  const auto q_zero = static_cast<uint32_t>(a.q_zero_point);
  for (int64_t j = 0; j < n; ++j) {
    key_terms[j] = static_cast<int32_t>(0U - q_zero * static_cast<uint32_t>(key_sums[j]));
  }
  integer_kernels().requantize_uniform({.rows = rows,
                                        .n = n,
                                        .sums = reinterpret_cast<const int32_t*>(scratch.products),
                                        .ld = kKeyBlock,
                                        .bases = scratch.bases,
                                        .constant = key_terms,
                                        .factor = a.score_factor,
                                        .output = a.score_codes},
                                       out, stride);
}

/// The same of products in 64 bits.
void requantize_scores_wide(const IntegerAttention& a, int64_t rows, int64_t n, const int32_t* key_sums,
                            const ScoreScratch& scratch, int16_t* out, int64_t stride) {
  auto* key_terms = reinterpret_cast<int64_t*>(scratch.constants);
  for (int64_t j = 0; j < n; ++j) key_terms[j] = -static_cast<int64_t>(a.q_zero_point) * key_sums[j];
  for (int64_t r = 0; r < rows; ++r) {
    requantize_wide(a.score_factor, a.score_codes, n,
                    reinterpret_cast<const int64_t*>(scratch.products) + r * kKeyBlock, scratch.terms[r],
                    key_terms, out + r * stride);
  }
}

/// Whether a tile's path holds a key of position 0 that is on a grid of its own.
bool sees_first_key(const IntegerAttention& a, const AttentionTile& tile) {
  return a.first && tile.first_key == 0 && !tile.path.empty() && tile.path.front().length > 0;
}

int16_t stored_code(const std::byte* base, bool narrow, int64_t at) {
  return narrow ? int16_t{reinterpret_cast<const int8_t*>(base)[at]}
                : reinterpret_cast<const int16_t*>(base)[at];
}

/// The codes of token 0 of the path's first piece as the cache has them: of its key, or of its value.
std::vector<int16_t> first_codes(const IntegerAttention& a, const AttentionTile& tile, bool of_key) {
  const HeadLayout head = layout(a, tile.path.front().capacity);
  const std::byte* base = tile.path.front().data + tile.kv_head * head.size;
  std::vector<int16_t> codes;
  for (int64_t i = 0; of_key && i < a.head_dim; ++i)
    codes.push_back(stored_code(base, a.narrow_k, i / 2 * 2 * kPanel + i % 2));
  for (int64_t j = 0; !of_key && j < a.value_dim; ++j) {
    const int64_t at = j / kPanel * head.value_panel_codes + 2 * (j % kPanel);
    codes.push_back(stored_code(base + head.values, a.narrow_v, at));
  }
  return codes;
}

}  // namespace

void IntegerArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const IntegerKernels& kernel = integer_kernels();
  const int64_t d = a.head_dim, group = tile.op->group();
  const int64_t rows = tile.query_count * group;
  const int64_t stride = tile.key_count;
  const bool fast = a.narrow_k && a.score_factor.fast();
  const auto gemm = fast         ? a.narrow_q ? kernel.gemm_narrow : kernel.gemm_modular
                    : a.narrow_k ? kernel.gemm_wide
                                 : kernel.gemm_wide16;
  // After the codes, the sums of each row's: softmax() leaves them for mix().
  tile.scores.resize(static_cast<size_t>(round_up(rows * stride, 8)) * sizeof(int16_t) +
                     static_cast<size_t>(rows) * sizeof(int64_t));
  const ScoreScratch scratch(tile.scratch, rows, d);
  gather_queries(tile, q, a, group, d, scratch);
  for_each_piece(
      tile, a,
      [&](const HeadLayout& head, const std::byte* base, int64_t skip, int64_t column, int64_t count) {
        const auto* key_sums = reinterpret_cast<const int32_t*>(base + head.sums) + skip;
        for (int64_t first = 0; first < count; first += kKeyBlock) {
          const int64_t block = std::min(kKeyBlock, count - first);
          gemm({.m = rows,
                .n = block,
                .k = d,
                .a = scratch.queries,
                .lda = d,
                .b = base + (skip + first) / kPanel * head.key_panel_codes * (a.narrow_k ? 1 : 2),
                .panel_stride = head.key_panel_codes,
                .c = scratch.products,
                .ldc = kKeyBlock});
          int16_t* out = tile.scores.as<int16_t>() + column + first;
          const auto requantize = fast ? requantize_scores : requantize_scores_wide;
          requantize(a, rows, block, key_sums + first, scratch, out, stride);
        }
      });
  if (sees_first_key(a, tile)) score_first_key(tile, scratch.queries);
}

void IntegerArithmetic::score_first_key(const AttentionTile& tile, const int16_t* queries) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const std::vector<int16_t> key = first_codes(a, tile, true);
  const int64_t group = tile.op->group();
  for (int64_t r = 0; r < tile.query_count * group; ++r) {
    const int16_t* query = queries + r * a.head_dim;
    int64_t sum = 0;
    for (int64_t i = 0; i < a.head_dim; ++i)
      sum += int64_t{query[i] - a.q_zero_point} * (key[static_cast<size_t>(i)] - a.first->k_zero_point);
    tile.scores.as<int16_t>()[r * tile.key_count] = requantize(sum, a.first->score_factor, a.score_codes);
  }
}

int64_t* IntegerArithmetic::probability_sums(const AttentionTile& tile) const {
  const int64_t rows = tile.query_count * tile.op->group();
  return reinterpret_cast<int64_t*>(tile.scores.as<int16_t>() + round_up(rows * tile.key_count, 8));
}

namespace {

/// Whether a probability of 0 is among the numbers that a code's 16 bits hold; not where a range excludes 0.
bool zero_is_a_code(const IntegerAttention& attention) {
  const int32_t zero = attention.probability_codes.zero_point;
  return zero >= INT16_MIN && zero <= INT16_MAX;
}

}  // namespace

void IntegerArithmetic::softmax(const AttentionTile& tile) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const int64_t keys = tile.last_end(), group = tile.op->group();
  const int64_t rows = tile.query_count * group;
  const auto hidden = static_cast<int16_t>(zero_is_a_code(a) ? a.probability_codes.zero_point : 0);
  int64_t* sums = probability_sums(tile);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t begin = tile.begin(r / group), end = tile.end(r / group);
    int16_t* row = tile.scores.as<int16_t>() + r * tile.key_count;
    sums[r] = softmax_row(a, end - begin, row + begin) + hidden * (keys - (end - begin));
    std::fill(row, row + begin, hidden);
    std::fill(row + end, row + keys, hidden);
  }
}

namespace {

// Mix of row r and channel j: Σ (p − p₀)(v − v₀) = Σ p·v + v₀·(n·p₀ − Σ p) − p₀·Σ v over n keys: all of the
// tile, hidden ones having p = p₀, or where no code says that, those that the query sees and p = 0 elsewhere.

/// Which keys the sums of a tile's mix run over.
struct MixKeys {
  bool shared;  ///< all of the tile for every query
  const AttentionTile& tile;

  int64_t all() const { return tile.last_end(); }
  int64_t begin(int64_t query) const { return shared ? 0 : tile.begin(query); }
  int64_t end(int64_t query) const { return shared ? all() : tile.end(query); }
  int64_t count(int64_t query) const { return end(query) - begin(query); }
};

/// What a tile's mix is made of, in the thread's scratch. A mask is a row of ones for the keys that sums of
/// values run over; there is one, or one per query.
struct MixScratch {
  std::byte* products;    ///< [rows, head_dim] of int32_t or int64_t
  std::byte* value_sums;  ///< [masks, head_dim] of the same
  int16_t* masks;         ///< [masks, keys]
  int64_t* terms;         ///< [group]
  int32_t* bases;         ///< [group], the terms modulo 2^32

  MixScratch(AlignedBuffer& buffer, int64_t rows, int64_t mask_count, int64_t keys, int64_t group,
             int64_t head_dim) {
    ScratchParts shares;
    const int64_t products_at = shares.add<int64_t>(rows * head_dim);
    const int64_t value_sums_at = shares.add<int64_t>(mask_count * head_dim);
    const int64_t masks_at = shares.add<int16_t>(mask_count * keys);
    const int64_t terms_at = shares.add<int64_t>(group);
    const int64_t bases_at = shares.add<int32_t>(group);
    std::byte* scratch = shares.allocate(buffer);
    products = scratch + products_at;
    value_sums = scratch + value_sums_at;
    masks = reinterpret_cast<int16_t*>(scratch + masks_at);
    terms = reinterpret_cast<int64_t*>(scratch + terms_at);
    bases = reinterpret_cast<int32_t*>(scratch + bases_at);
  }
};

void fill_masks(const MixKeys& keys, int64_t count, int16_t* masks) {
  for (int64_t i = 0; i < count; ++i) {
    int16_t* mask = masks + i * keys.all();
    std::fill(mask, mask + keys.all(), int16_t{0});
    std::fill(mask + keys.begin(i), mask + keys.end(i), int16_t{1});
  }
}

/// Sums of n values, of 32 bits modulo 2^32 or of 64, to −p₀ times them.
void scale_value_sums(const IntegerAttention& a, bool fast, int64_t n, std::byte* value_sums) {
  const int64_t p_zero = a.probability_codes.zero_point;
  for (int64_t j = 0; j < n; ++j) {
    if (fast) {
      auto& sum = reinterpret_cast<int32_t*>(value_sums)[j];
      sum = modulo32(-p_zero * sum);
    } else {
      reinterpret_cast<int64_t*>(value_sums)[j] *= -p_zero;
    }
  }
}

/// One query's rows, `group` of them from row `first` on, with their terms in the scratch: out [group, d].
/// `mask` is the one of its sums of values.
void requantize_mix(const IntegerAttention& a, bool fast, int64_t group, int64_t d, int64_t first,
                    int64_t mask, const MixScratch& scratch, int16_t* out) {
  if (fast) {
    for (int64_t r = 0; r < group; ++r) scratch.bases[r] = modulo32(scratch.terms[r]);
    integer_kernels().requantize_uniform(
        {.rows = group,
         .n = d,
         .sums = reinterpret_cast<const int32_t*>(scratch.products) + first * d,
         .ld = d,
         .bases = scratch.bases,
         .constant = reinterpret_cast<const int32_t*>(scratch.value_sums) + mask * d,
         .factor = a.mix_factor,
         .output = a.mix_codes},
        out, d);
    return;
  }
  for (int64_t r = 0; r < group; ++r) {
    requantize_wide(a.mix_factor, a.mix_codes, d,
                    reinterpret_cast<const int64_t*>(scratch.products) + (first + r) * d, scratch.terms[r],
                    reinterpret_cast<const int64_t*>(scratch.value_sums) + mask * d, out + r * d);
  }
}

}  // namespace

void IntegerArithmetic::mix(const AttentionTile& tile, Tensor& out) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const IntegerKernels& kernel = integer_kernels();
  const int64_t d = a.value_dim;
  const int64_t group = tile.op->group();
  const int64_t rows = tile.query_count * group;
  const bool fast = a.narrow_v && a.mix_factor.fast();
  const auto gemm = fast ? kernel.gemm_modular : a.narrow_v ? kernel.gemm_wide : kernel.gemm_wide16;
  const MixKeys keys{zero_is_a_code(a), tile};
  const int64_t masks = keys.shared ? 1 : tile.query_count;
  const MixScratch scratch(tile.scratch, rows, masks, keys.all(), group, d);
  fill_masks(keys, masks, scratch.masks);
  for_each_piece(
      tile, a,
      [&](const HeadLayout& head, const std::byte* base, int64_t skip, int64_t column, int64_t count) {
        IntegerGemm product{.m = rows,
                            .n = d,
                            .k = count,
                            .a = tile.scores.as<int16_t>() + column,
                            .lda = tile.key_count,
                            .b = base + head.values + skip * kPanel * (a.narrow_v ? 1 : 2),
                            .panel_stride = head.value_panel_codes,
                            .c = scratch.products,
                            .ldc = d,
                            .accumulate = column > 0};
        gemm(product);
        product.m = masks;
        product.a = scratch.masks + column;
        product.lda = keys.all();
        product.c = scratch.value_sums;
        gemm(product);
      });
  const bool apart = sees_first_key(a, tile);
  if (apart) mix_first_value(tile, fast, scratch.products);
  scale_value_sums(a, fast, masks * d, scratch.value_sums);
  const int64_t p_zero = a.probability_codes.zero_point;
  const int64_t* sums = probability_sums(tile);
  for (int64_t query = 0; query < tile.query_count; ++query) {
    const int64_t first = query * group;
    for (int64_t r = 0; r < group; ++r) {
      scratch.terms[r] = a.v_zero_point * (keys.count(query) * p_zero - sums[first + r]);
    }
    requantize_mix(a, fast, group, d, first, keys.shared ? 0 : query, scratch,
                   out.row<int16_t>(tile.first_row + query) + tile.kv_head * group * d);
  }
  if (!apart || tile.first_position != 0) return;
  // The query at position 0: its own value, whole.
  const std::vector<int16_t> value = first_codes(a, tile, false);
  auto* own = out.row<int16_t>(tile.first_row) + tile.kv_head * group * d;
  for (int64_t i = 0; i < group * d; ++i) {
    const int64_t number = value[static_cast<size_t>(i % d)] - a.first->v_zero_point;
    own[i] = requantize(number, a.first->own_factor, a.first->own_codes);
  }
}

// The products have taken the value of position 0 for one on the others' grid: what that is wrong by.
void IntegerArithmetic::mix_first_value(const AttentionTile& tile, bool fast, std::byte* products) const {
  const IntegerAttention& a = layer_at(tile.layer).attention;
  const std::vector<int16_t> value = first_codes(a, tile, false);
  const int64_t group = tile.op->group(), d = a.value_dim;
  std::vector<int32_t> own, taken;
  for (const int16_t code : value) {
    own.push_back(code - a.first->v_zero_point);
    taken.push_back(code - a.v_zero_point);
  }
  for (int64_t r = 0; r < tile.query_count * group; ++r) {
    if (tile.begin(r / group) > 0) continue;  // hidden by the window
    const int64_t p = tile.scores.as<int16_t>()[r * tile.key_count] - a.probability_codes.zero_point;
    if (fast) {
      integer_kernels().replace_value(static_cast<int32_t>(p), a.first->value_factor, own.data(),
                                      taken.data(), d, reinterpret_cast<int32_t*>(products) + r * d);
      continue;
    }
    for (int64_t j = 0; j < d; ++j) {
      reinterpret_cast<int64_t*>(products)[r * d + j] +=
          rescale(p * own[static_cast<size_t>(j)], a.first->value_factor) - p * taken[static_cast<size_t>(j)];
    }
  }
}

void IntegerArithmetic::shape_mixed(const model::AttentionOp& op, int64_t rows, Tensor& out) const {
  out.resize(rows, op.heads * op.value_dim, sizeof(int16_t));
}

}  // namespace qeval::quant
