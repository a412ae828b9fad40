// The attention of both arithmetics, side by side.

#include <cstring>
#include <numeric>

#include "quant/arithmetic/integer/comparison.h"
#include "quant/arithmetic/integer/comparison_codes.h"

namespace qeval::quant {

using model::AttentionTile;
using model::KvBlock;
using model::KvPiece;
using model::Tensor;

namespace {

/// The integers' side of an attention tile, from scores() to mix().
struct TileScratch {
  AlignedBuffer scores, scratch;
};
TileScratch& tile_scratch() {
  thread_local TileScratch scratch;
  return scratch;
}

AttentionTile integer_tile(const AttentionTile& tile, std::span<const KvPiece> path) {
  return {.layer = tile.layer,
          .op = tile.op,
          .kv_head = tile.kv_head,
          .first_row = tile.first_row,
          .query_count = tile.query_count,
          .first_position = tile.first_position,
          .first_key = tile.first_key,
          .key_count = tile.key_count,
          .path = path,
          .scores = tile_scratch().scores,
          .scratch = tile_scratch().scratch};
}

/// Calls body(row, first, code, count) for the rows of a tile, with what each sees of the scores: where they
/// begin among the simulation's, whose rows are `stride` apart, and among the codes, whose rows follow one
/// another.
template <typename Body>
void for_each_score_row(const AttentionTile& tile, int64_t stride, const Body& body) {
  const int64_t group = tile.op->group();
  for (int64_t r = 0; r < tile.query_count * group; ++r) {
    const int64_t begin = tile.begin(r / group);
    body(r, r * stride + begin, r * tile.key_count + begin, tile.end(r / group) - begin);
  }
}

}  // namespace

int64_t ComparingArithmetic::fake_kv_bytes(int64_t layer, int64_t tokens) const {
  constexpr int64_t kAlignment = 64;
  return (fake_.kv_bytes(layer, tokens) + kAlignment - 1) / kAlignment * kAlignment;
}

int64_t ComparingArithmetic::kv_bytes(int64_t layer, int64_t tokens) const {
  return fake_kv_bytes(layer, tokens) + integer_.kv_bytes(layer, tokens);
}

void ComparingArithmetic::store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row,
                                   int64_t count, const KvBlock& block, int64_t at) const {
  fake_.store_kv(layer, k, v, first_row, count, block, at);
  integer_.store_kv(
      layer, to_codes([&](int64_t r) -> const PointGrid& { return grids(layer, k, r).attention.k; }, k),
      to_codes([&](int64_t r) -> const PointGrid& { return grids(layer, v, r).attention.v; }, v), first_row,
      count, {block.data + fake_kv_bytes(layer, block.capacity), block.capacity}, at);
}

std::vector<KvPiece> ComparingArithmetic::integer_path(const AttentionTile& tile) const {
  const int64_t source = tile.layer - tile.op->kv_from;  // whose keys and values they are
  std::vector<KvPiece> path;
  for (const KvPiece& piece : tile.path) {
    path.push_back(
        {piece.data + fake_kv_bytes(source, piece.capacity), piece.capacity, piece.length, piece.skip});
  }
  return path;
}

void ComparingArithmetic::scores(const AttentionTile& tile, const Tensor& q) const {
  const AttentionGrids& grid = grids(tile.layer).attention;
  Tensor codes;
  codes.resize(q.rows, q.cols, sizeof(int16_t));
  for (int64_t r = tile.first_row; r < tile.first_row + tile.query_count; ++r)
    to_codes(grids(tile.layer, q, r).attention.q, q.row<float>(r), q.cols, codes.row<int16_t>(r));
  const std::vector<KvPiece> path = integer_path(tile);
  integer_.scores(integer_tile(tile, path), codes);
  fake_.scores(tile, q);
  for_each_score_row(
      tile, fake_.score_stride(tile), [&](int64_t r, int64_t first, int64_t code, int64_t count) {
        if (is_alone(tile, r)) return;
        compare({tile.layer, Module::qk_product, Slot::output}, grid.scores,
                tile_scratch().scores.as<int16_t>() + code, tile.scores.as<float>() + first, count);
      });
}

void ComparingArithmetic::softmax(const AttentionTile& tile) const {
  const AttentionGrids& grid = grids(tile.layer).attention;
  int16_t* codes = tile_scratch().scores.as<int16_t>();
  const int64_t stride = fake_.score_stride(tile);
  for_each_score_row(tile, stride, [&](int64_t, int64_t first, int64_t code, int64_t count) {
    to_codes(grid.scores, tile.scores.as<float>() + first, count, codes + code);
  });
  const std::vector<KvPiece> path = integer_path(tile);
  integer_.softmax(integer_tile(tile, path));
  fake_.softmax(tile);
  for_each_score_row(tile, stride, [&](int64_t r, int64_t first, int64_t code, int64_t count) {
    if (is_alone(tile, r)) return;
    compare({tile.layer, Module::pv_product, Slot::input}, grid.probabilities, codes + code,
            tile.scores.as<float>() + first, count);
  });
}

void ComparingArithmetic::mix(const AttentionTile& tile, Tensor& out) const {
  const AttentionGrids& grid = grids(tile.layer).attention;
  const std::vector<KvPiece> path = integer_path(tile);
  const AttentionTile integers = integer_tile(tile, path);
  int64_t* sums = integer_.probability_sums(integers);
  for_each_score_row(tile, fake_.score_stride(tile),
                     [&](int64_t r, int64_t first, int64_t code, int64_t count) {
                       int16_t* codes = integers.scores.as<int16_t>() + code;
                       sums[r] -= std::accumulate(codes, codes + count, int64_t{0});
                       to_codes(grid.probabilities, tile.scores.as<float>() + first, count, codes);
                       sums[r] += std::accumulate(codes, codes + count, int64_t{0});
                     });
  Tensor mixed;
  mixed.resize(out.rows, out.cols, sizeof(int16_t));
  integer_.mix(integers, mixed);
  fake_.mix(tile, out);
  const int64_t width = tile.op->group() * tile.op->value_dim;
  for (int64_t i = tile.first_row; i < tile.first_row + tile.query_count; ++i) {
    const bool first = tile.first_position + i - tile.first_row == 0;
    compare({tile.layer, Module::pv_product, Slot::output}, grids(tile.layer, first).attention.mixed,
            mixed.row<int16_t>(i) + tile.kv_head * width, out.row<float>(i) + tile.kv_head * width, width);
  }
}

void ComparingArithmetic::shape_mixed(const model::AttentionOp& op, int64_t rows, Tensor& out) const {
  fake_.shape_mixed(op, rows, out);
}

}  // namespace qeval::quant
