#include "quant/arithmetic/integer/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "model/decoder.h"
#include "quant/arithmetic/integer/comparison_codes.h"
#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {

using model::Tensor;

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

template <typename Compute>
void ComparingArithmetic::compare_linears(int64_t layer, const Tensor& in, std::span<const Target> targets,
                                          const Compute& compute) const {
  std::vector<Tensor> codes(targets.size());
  std::vector<Target> integer_targets;
  for (size_t i = 0; i < targets.size(); ++i) integer_targets.push_back({targets[i].op, &codes[i]});
  const auto operation = [&](size_t target, int64_t r) -> const OperationGrids& {
    return grids(layer, in, r).modules.at(targets[target].op->module);
  };
  compute(read_codes([&](int64_t r) -> const OperationGrids& { return operation(0, r); }, in),
          std::span<const Target>(integer_targets));
  for (size_t i = 0; i < targets.size(); ++i) {
    compare(
        grids(layer).modules.at(targets[i].op->module).point,
        [&](int64_t r) -> const PointGrid& { return operation(i, r).out; }, codes[i], *targets[i].out);
  }
}

void ComparingArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  compare_linears(layer, in, targets, [&](const Tensor& codes, std::span<const Target> integers) {
    integer_.linear(layer, codes, integers);
    fake_.linear(layer, in, targets);
  });
}

void ComparingArithmetic::expert_linear(int64_t layer, const Tensor& in, const model::Routing& routing,
                                        std::span<const Target> targets) const {
  compare_linears(layer, in, targets, [&](const Tensor& codes, std::span<const Target> integers) {
    integer_.expert_linear(layer, codes, routing, integers);
    fake_.expert_linear(layer, in, routing, targets);
  });
}

void ComparingArithmetic::route(int64_t layer, const model::RouteOp& op, const Tensor& logits,
                                model::Routing& routing) const {
  const PointGrid &grid = grids(layer).router, &weights = grids(layer).mix.weights;
  model::Routing integers;
  integer_.route(layer, op, to_codes([&](int64_t) -> const PointGrid& { return grid; }, logits), integers);
  fake_.route(layer, op, logits, routing);
  routed_ += routing.rows;
  const std::vector<int16_t> codes(integers.codes.begin(), integers.codes.end());
  routing.codes.clear();
  for (const float weight : routing.weights) routing.codes.push_back(weights.code(weight));
  for (int64_t first = 0; first < std::ssize(codes); first += op.used) {
    const auto same = [&](const std::vector<int32_t>& x, const std::vector<int32_t>& y) {
      return std::equal(x.begin() + first, x.begin() + first + op.used, y.begin() + first);
    };
    if (same(routing.experts, integers.experts)) {
      record({layer, Module::expert_mix, Slot::input}, weights, codes.data() + first,
             routing.weights.data() + first, op.used);
    } else {
      ++routed_otherwise_;
    }
  }
  if (!take_integer_ || !take_integer_({layer, Module::expert_mix, Slot::input})) return;
  routing = std::move(integers);
  routing.weights.clear();
  for (const int32_t code : routing.codes) routing.weights.push_back(weights.value(code));
}

void ComparingArithmetic::dispatch(int64_t layer, const model::DispatchOp& op, const Tensor& in,
                                   const model::Routing& routing, Tensor& out) const {
  fake_.dispatch(layer, op, in, routing, out);
}

void ComparingArithmetic::mix_experts(int64_t layer, const model::MixExpertsOp& op,
                                      const ExpertResults& results, const model::Routing& routing,
                                      Tensor& out) const {
  const MixGrids& grid = grids(layer).mix;
  const auto codes_on = [](const PointGrid& on, const Tensor& values) {
    return to_codes([&](int64_t) -> const PointGrid& { return on; }, values);
  };
  const Tensor experts = codes_on(grid.experts, results.experts);
  const Tensor shared = op.shared ? codes_on(grid.shared, results.shared) : Tensor();
  const Tensor gate = op.shared_gate ? codes_on(grid.gate, results.shared_gate) : Tensor();
  Tensor codes;
  integer_.mix_experts(layer, op, {experts, shared, gate}, routing, codes);
  fake_.mix_experts(layer, op, results, routing, out);
  compare(
      Point{layer, op.module, Slot::output}, [&](int64_t) -> const PointGrid& { return grid.out; }, codes,
      out);
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

void ComparingArithmetic::scale(int64_t layer, const model::ScaleOp& op, const Tensor& in,
                                Tensor& out) const {
  const FactorGrids& grid = grids(layer).factor.value();
  Tensor stream = to_stream([&](int64_t) -> const StreamGrid& { return grid.before; }, in);
  integer_.scale(layer, op, stream, stream);
  fake_.scale(layer, op, in, out);
  compare_stream(
      grid.reader, [&](int64_t) -> const StreamGrid& { return grid.behind; }, stream, out);
}

void ComparingArithmetic::embed_layers(std::span<const int32_t> tokens, const Tensor& embedded,
                                       Tensor& out) const {
  fake_.embed_layers(tokens, embedded, out);
}

void ComparingArithmetic::add(int64_t layer, const model::AddOp& op, const Tensor& update,
                              Tensor& residual) const {
  if (op.to != model::Value::residual) {
    const SumGrids& grid = grids(layer).sums.at(op.module);
    const auto codes_on = [](const PointGrid& on, const Tensor& values) {
      return to_codes([&](int64_t) -> const PointGrid& { return on; }, values);
    };
    Tensor codes = codes_on(grid.to, residual);
    integer_.add(layer, op, codes_on(grid.in, update), codes);
    fake_.add(layer, op, update, residual);
    compare(
        grid.reader, [&](int64_t) -> const PointGrid& { return grid.out; }, codes, residual);
    return;
  }
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
  const auto operation = [&](int64_t r) -> const OperationGrids& {
    return grids(layer, gate, r).activations.at(op.module);
  };
  Tensor codes = to_codes([&](int64_t r) -> const PointGrid& { return operation(r).in; }, gate);
  integer_.activate(layer, op, codes);
  fake_.activate(layer, op, gate);
  compare(
      grids(layer).activations.at(op.module).point,
      [&](int64_t r) -> const PointGrid& { return operation(r).out; }, codes, gate);
}

void ComparingArithmetic::multiply(int64_t layer, const model::MultiplyOp& op, const Tensor& up,
                                   Tensor& gate) const {
  const auto product = [&](int64_t r) -> const ProductGrids& {
    return grids(layer, gate, r).products.at(op.module);
  };
  if (grids(layer).products.at(op.module).exact) {  // a rotation reads it
    fake_.multiply(layer, op, up, gate);
    return;
  }
  Tensor codes = to_codes([&](int64_t r) -> const PointGrid& { return product(r).gate; }, gate);
  integer_.multiply(layer, op, to_codes([&](int64_t r) -> const PointGrid& { return product(r).up; }, up),
                    codes);
  fake_.multiply(layer, op, up, gate);
  compare(
      Point{layer, op.module, Slot::input}, [&](int64_t r) -> const PointGrid& { return product(r).out; },
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
    const bool wide = (first ? integers.first->layers : integers.layers)[static_cast<size_t>(layer)]
                          .products.at(Module::down)
                          .wide;
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
