#include "quant/arithmetic/integer/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "model/decoder.h"
#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {

using model::AttentionTile;
using model::KvBlock;
using model::KvPiece;
using model::Tensor;

namespace {

constexpr int64_t kRowGrain = 16;

void to_codes(const PointGrid& grid, const float* values, int64_t n, int16_t* codes) {
  quant_kernels().quantize_i16(values, n, grid.grid, grid.offset, codes);
}

/// The codes of a tensor, each row on the grid that grid_of(row) gives.
template <typename GridOf>
Tensor to_codes(const GridOf& grid_of, const Tensor& values) {
  Tensor codes;
  codes.resize(values.rows, values.cols, sizeof(int16_t));
  codes.first_rows = values.first_rows;
  parallel_ranges(values.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      to_codes(grid_of(r), values.row<float>(r), values.cols, codes.row<int16_t>(r));
  });
  return codes;
}

template <typename GridOf>
Tensor to_stream(const GridOf& grid_of, const Tensor& values) {
  Tensor codes;
  codes.resize(values.rows, values.cols, sizeof(int32_t));
  codes.first_rows = values.first_rows;
  parallel_ranges(values.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const StreamGrid& grid = grid_of(r);
      for (int64_t i = 0; i < values.cols; ++i) codes.row<int32_t>(r)[i] = grid.code(values.row<float>(r)[i]);
    }
  });
  return codes;
}

/// What an operation reads, as the integers have it; grids_of(row) are an OperationGrids.
template <typename GridsOf>
Tensor read_codes(const GridsOf& grids_of, const Tensor& values) {
  if (values.rows > 0 && grids_of(0).stream)
    return to_stream([&](int64_t r) -> const StreamGrid& { return *grids_of(r).stream; }, values);
  return to_codes([&](int64_t r) -> const PointGrid& { return grids_of(r).in; }, values);
}

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

/// Calls body(row, first, count) for the rows of a tile, with the elements of the scores that each sees.
template <typename Body>
void for_each_row(const AttentionTile& tile, const Body& body) {
  const int64_t group = tile.op->group();
  for (int64_t r = 0; r < tile.query_count * group; ++r) {
    const int64_t begin = tile.begin(r / group);
    body(r, r * tile.key_count + begin, tile.end(r / group) - begin);
  }
}

}  // namespace

ComparingArithmetic::ComparingArithmetic(const model::Model& model, const FakeArithmetic& fake,
                                         const IntegerArithmetic& integer, Choice take_integer)
    : fake_(fake),
      integer_(integer),
      grids_(integer.grids()),
      first_(integer.prepared().first ? &integer.first_grids() : nullptr),
      take_integer_(std::move(take_integer)),
      differences_(model.config.num_layers) {}

void ComparingArithmetic::record(const Point& point, const PointGrid& grid, const int16_t* codes,
                                 const float* values, int64_t n) const {
  thread_local std::vector<int16_t> wanted;
  wanted.resize(static_cast<size_t>(n));
  to_codes(grid, values, n, wanted.data());
  StepDifference found{.values = n};
  for (int64_t i = 0; i < n; ++i) {
    const int32_t difference = std::abs(codes[i] - wanted[static_cast<size_t>(i)]);
    found.different += static_cast<int64_t>(difference != 0);
    found.total += difference;
    found.largest = std::max(found.largest, difference);
  }
  const std::lock_guard lock(mutex_);
  StepDifference& all = differences_[point];
  all.values += found.values;
  all.different += found.different;
  all.total += found.total;
  all.largest = std::max(all.largest, found.largest);
}

void ComparingArithmetic::compare(const Point& point, const PointGrid& grid, const int16_t* codes,
                                  float* values, int64_t n) const {
  record(point, grid, codes, values, n);
  if (!take_integer_ || !take_integer_(point)) return;
  for (int64_t i = 0; i < n; ++i) values[i] = grid.value(codes[i]);
}

template <typename GridOf>
void ComparingArithmetic::compare(const Point& point, const GridOf& grid_of, const Tensor& codes,
                                  Tensor& values) const {
  parallel_ranges(values.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      compare(point, grid_of(r), codes.row<int16_t>(r), values.row<float>(r), values.cols);
  });
}

template <typename GridOf>
void ComparingArithmetic::compare_stream(const Point& point, const GridOf& grid_of, const Tensor& stream,
                                         Tensor& values) const {
  parallel_ranges(values.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<int32_t> d(static_cast<size_t>(values.cols));
    std::vector<int16_t> codes(static_cast<size_t>(values.cols));
    for (int64_t r = first; r < last; ++r) {
      const StreamGrid& grid = grid_of(r);
      const StreamFormat format = grid.format();
      integer_kernels().read_stream(format, values.cols, stream.row<int32_t>(r), d.data());
      for (size_t i = 0; i < d.size(); ++i) {
        codes[i] = static_cast<int16_t>(d[i] + format.codes.zero_point);
      }
      auto* row = values.row<float>(r);
      record(point, grid.grid, codes.data(), row, values.cols);
      if (!take_integer_ || !take_integer_(point)) continue;
      for (int64_t i = 0; i < values.cols; ++i) row[i] = grid.value(stream.row<int32_t>(r)[i]);
    }
  });
}

void ComparingArithmetic::embed(std::span<const int32_t> tokens, const model::RowPositions& rows,
                                Tensor& residual) const {
  Tensor codes;
  codes.first_rows = residual.first_rows;
  integer_.embed(tokens, rows, codes);
  fake_.embed(tokens, rows, residual);
  compare_stream(
      grids_.embedded_at, [&](int64_t r) -> const StreamGrid& { return model_grids(residual, r).embedded; },
      codes, residual);
}

void ComparingArithmetic::norm(int64_t layer, const model::NormOp& op, const Tensor& in, Tensor& out) const {
  const auto operation = [&](int64_t r) -> const OperationGrids& {
    return grids(layer, in, r).modules.at(op.module);
  };
  Tensor codes;
  integer_.norm(layer, op, read_codes(operation, in), codes);
  fake_.norm(layer, op, in, out);
  compare(
      grids(layer).modules.at(op.module).point,
      [&](int64_t r) -> const PointGrid& { return operation(r).out; }, codes, out);
}

void ComparingArithmetic::finish(const Tensor& residual, Tensor& out) const {
  Tensor codes;
  integer_.finish(
      to_stream([&](int64_t r) -> const StreamGrid& { return model_grids(residual, r).stream; }, residual),
      codes);
  fake_.finish(residual, out);
  compare(
      Point{0, Module::final_norm, Slot::output}, [&](int64_t) -> const PointGrid& { return grids_.normed; },
      codes, out);
}

void ComparingArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  std::vector<Tensor> codes(targets.size());
  std::vector<Target> integer_targets;
  for (size_t i = 0; i < targets.size(); ++i) integer_targets.push_back({targets[i].op, &codes[i]});
  const auto operation = [&](size_t target, int64_t r) -> const OperationGrids& {
    return grids(layer, in, r).modules.at(targets[target].op->module);
  };
  integer_.linear(layer, read_codes([&](int64_t r) -> const OperationGrids& { return operation(0, r); }, in),
                  integer_targets);
  fake_.linear(layer, in, targets);
  for (size_t i = 0; i < targets.size(); ++i) {
    compare(
        grids(layer).modules.at(targets[i].op->module).point,
        [&](int64_t r) -> const PointGrid& { return operation(i, r).out; }, codes[i], *targets[i].out);
  }
}

void ComparingArithmetic::rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
                                 Tensor& heads) const {
  const auto operation = [&](int64_t r) -> const OperationGrids& {
    return grids(layer, heads, r).rotations.at(op.value);
  };
  if (grids(layer).rotations.at(op.value).derived) {  // no point has the result, which a rotation reads
    fake_.rotate(layer, op, rows, heads);
    return;
  }
  Tensor codes = to_codes([&](int64_t r) -> const PointGrid& { return operation(r).in; }, heads);
  integer_.rotate(layer, op, rows, codes);
  fake_.rotate(layer, op, rows, heads);
  compare(
      grids(layer).rotations.at(op.value).point,
      [&](int64_t r) -> const PointGrid& { return operation(r).out; }, codes, heads);
}

void ComparingArithmetic::split_latent(int64_t layer, const model::SplitLatentOp& op, const Tensor& latent,
                                       const Tensor& heads, Tensor& k, Tensor& v) const {
  fake_.split_latent(layer, op, latent, heads, k, v);
}

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
  std::vector<KvPiece> path;
  for (const KvPiece& piece : tile.path) {
    path.push_back(
        {piece.data + fake_kv_bytes(tile.layer, piece.capacity), piece.capacity, piece.length, piece.skip});
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
  for_each_row(tile, [&](int64_t r, int64_t first, int64_t count) {
    if (is_alone(tile, r)) return;
    compare({tile.layer, Module::qk_product, Slot::output}, grid.scores,
            tile_scratch().scores.as<int16_t>() + first, tile.scores.as<float>() + first, count);
  });
}

void ComparingArithmetic::softmax(const AttentionTile& tile) const {
  const AttentionGrids& grid = grids(tile.layer).attention;
  int16_t* codes = tile_scratch().scores.as<int16_t>();
  for_each_row(tile, [&](int64_t, int64_t first, int64_t count) {
    to_codes(grid.scores, tile.scores.as<float>() + first, count, codes + first);
  });
  const std::vector<KvPiece> path = integer_path(tile);
  integer_.softmax(integer_tile(tile, path));
  fake_.softmax(tile);
  for_each_row(tile, [&](int64_t r, int64_t first, int64_t count) {
    if (is_alone(tile, r)) return;
    compare({tile.layer, Module::pv_product, Slot::input}, grid.probabilities, codes + first,
            tile.scores.as<float>() + first, count);
  });
}

void ComparingArithmetic::mix(const AttentionTile& tile, Tensor& out) const {
  const AttentionGrids& grid = grids(tile.layer).attention;
  const std::vector<KvPiece> path = integer_path(tile);
  const AttentionTile integers = integer_tile(tile, path);
  int64_t* sums = integer_.probability_sums(integers);
  for_each_row(tile, [&](int64_t r, int64_t first, int64_t count) {
    int16_t* codes = integers.scores.as<int16_t>() + first;
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

void ComparingArithmetic::add(int64_t layer, const model::AddOp& op, const Tensor& update,
                              Tensor& residual) const {
  const auto operation = [&](int64_t r) -> const AddGrids& {
    return grids(layer, residual, r).adds.at(op.module);
  };
  Tensor stream = to_stream([&](int64_t r) -> const StreamGrid& { return operation(r).stream; }, residual);
  integer_.add(layer, op,
               to_codes([&](int64_t r) -> const PointGrid& { return operation(r).update; }, update), stream);
  fake_.add(layer, op, update, residual);
  compare_stream(
      grids(layer).adds.at(op.module).reader,
      [&](int64_t r) -> const StreamGrid& { return operation(r).next; }, stream, residual);
}

void ComparingArithmetic::activate(int64_t layer, const model::ActivateOp& op, Tensor& gate) const {
  const auto operation = [&](int64_t r) -> const OperationGrids& { return grids(layer, gate, r).activation; };
  Tensor codes = to_codes([&](int64_t r) -> const PointGrid& { return operation(r).in; }, gate);
  integer_.activate(layer, op, codes);
  fake_.activate(layer, op, gate);
  compare(
      grids(layer).activation.point, [&](int64_t r) -> const PointGrid& { return operation(r).out; }, codes,
      gate);
}

void ComparingArithmetic::multiply(int64_t layer, const model::MultiplyOp& op, const Tensor& up,
                                   Tensor& gate) const {
  const auto product = [&](int64_t r) -> const ProductGrids& { return grids(layer, gate, r).product; };
  if (grids(layer).product.exact) {  // a rotation reads it
    fake_.multiply(layer, op, up, gate);
    return;
  }
  Tensor codes = to_codes([&](int64_t r) -> const PointGrid& { return product(r).gate; }, gate);
  integer_.multiply(layer, op, to_codes([&](int64_t r) -> const PointGrid& { return product(r).up; }, up),
                    codes);
  fake_.multiply(layer, op, up, gate);
  compare(
      Point{layer, Module::down, Slot::input}, [&](int64_t r) -> const PointGrid& { return product(r).out; },
      codes, gate);
}

void ComparingArithmetic::hadamard(int64_t layer, const model::HadamardOp& op, Tensor& value) const {
  const auto operation = [&](int64_t r) -> const HadamardGrids& {
    return grids(layer, value, r).hadamards.at(op.value);
  };
  const bool product = grids(layer).hadamards.at(op.value).product.has_value();
  Tensor codes = product ? to_products(layer, op.value, value)
                         : to_codes([&](int64_t r) -> const PointGrid& { return operation(r).in; }, value);
  integer_.hadamard(layer, op, codes);
  fake_.hadamard(layer, op, value);
  compare(
      grids(layer).hadamards.at(op.value).point,
      [&](int64_t r) -> const PointGrid& { return operation(r).out; }, codes, value);
}

Tensor ComparingArithmetic::to_products(int64_t layer, model::Value value, const Tensor& values) const {
  const IntegerModel& integers = integer_.prepared();
  Tensor products;
  products.resize(values.rows, values.cols, sizeof(int64_t));
  products.first_rows = values.first_rows;
  for (int64_t r = 0; r < values.rows; ++r) {
    const bool first = first_ != nullptr && values.is_first(r);
    const ProductGrids& product = *grids(layer, first).hadamards.at(value).product;
    const bool wide =
        (first ? integers.first->layers : integers.layers)[static_cast<size_t>(layer)].product.wide;
    const double step = product.gate.scale() * product.up.scale();
    auto* out = products.row<int64_t>(r);
    for (int64_t i = 0; i < values.cols; ++i) {
      const auto units =
          static_cast<int64_t>(std::nearbyint(static_cast<double>(values.row<float>(r)[i]) / step));
      if (wide) {
        out[i] = units;
      } else {
        reinterpret_cast<int32_t*>(out)[i] = static_cast<int32_t>(units);
      }
    }
  }
  return products;
}

void ComparingArithmetic::gather(const Tensor& residual, std::span<const int64_t> rows, Tensor& out) const {
  fake_.gather(residual, rows, out);
}

void ComparingArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  // The head's results have no grid to compare on; they can only be taken.
  if (take_integer_ && take_integer_({0, Module::head, Slot::output})) {
    integer_.logits(to_codes([&](int64_t) -> const PointGrid& { return grids_.normed; }, normed), first,
                    count, logits);
  } else {
    fake_.logits(normed, first, count, logits);
  }
}

PointMap<StepDifference> compare_operations(const model::Model& model, const FakeArithmetic& fake,
                                            const IntegerArithmetic& integer, const Samples& samples,
                                            const std::function<void(int64_t, int64_t)>& progress) {
  const ComparingArithmetic arithmetic(model, fake, integer);
  model::Decoder decoder(model, arithmetic);
  for (size_t s = 0; s < samples.size(); ++s) {
    const auto length = static_cast<int64_t>(samples[s].size());
    model::KvSpan span(arithmetic, length, 1);
    model::Batch batch;
    batch.tokens = samples[s];
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < length; ++i) {
      batch.positions.push_back(static_cast<int32_t>(i));
      rows.push_back(i);
    }
    batch.segments.push_back({.first_row = 0, .length = length, .first_position = 0, .kv = &span});
    decoder.forward(batch);
    std::vector<model::TokenQuery> queries;
    queries.reserve(rows.size());
    for (const int64_t row : rows) queries.push_back({row, 0});
    decoder.answer(queries);
    if (progress) progress(static_cast<int64_t>(s) + 1, static_cast<int64_t>(samples.size()));
  }
  return arithmetic.differences();
}

}  // namespace qeval::quant
