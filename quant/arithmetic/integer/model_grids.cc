#include "quant/arithmetic/integer/model_grids.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "quant/arithmetic/integer/prepare.h"

namespace qeval::quant {

using model::Value;

namespace {

PointGrid checked(const Point& point, const QuantSpec& spec, const Range& range) {
  if (spec.dynamic) {
    fail("{}: a dynamic range needs a floating-point scale; integer arithmetic accepts static ranges",
         point_name(point));
  }
  const PointGrid grid = make_point_grid(spec, range);
  if (std::abs(grid.grid.zero_point) > kFarthestZeroPoint) {
    fail(
        "{}: the range [{}, {}] lies too far from 0 for its width; integer arithmetic accepts a zero point "
        "of at "
        "most 2^23",
        point_name(point), range.lo, range.hi);
  }
  return grid;
}

/// The module whose input point an operation reads `value` at, where it is a norm or a linear map.
std::optional<Module> reading_module(const model::Operation& operation, Value value) {
  if (const auto* norm = std::get_if<model::NormOp>(&operation); norm != nullptr && norm->in == value) {
    return norm->module;
  }
  if (const auto* linear = std::get_if<model::LinearOp>(&operation);
      linear != nullptr && linear->in == value) {
    return linear->module;
  }
  return std::nullopt;
}

/// Walks one block, with the grid that every tensor is on.
class LayerWalk {
 public:
  LayerWalk(const GridSource& source, const model::BlockGraph& block, std::span<const LayerGrids> earlier)
      : source_(source),
        operations_(block.operations),
        earlier_(earlier),
        layer_(std::ssize(earlier)),
        stream_(source.stream(layer_, 0)) {}

  LayerGrids walk() {
    for (at_ = 0; at_ < operations_.size(); ++at_) {
      std::visit([&](const auto& op) { step(op); }, operations_[at_]);
    }
    return std::move(grids_);
  }

 private:
  PointGrid& on(Value value) { return present_[static_cast<size_t>(value)]; }
  Point point(Module module, Slot slot) const { return {layer_, module, slot}; }

  /// What `module` reads: the stream at its own point, or codes, which the point may round again.
  void read(Module module, Value value, bool needs_point, OperationGrids& op) {
    const Point input = point(module, Slot::input);
    if (value == Value::residual) {
      op.stream = stream_;
      op.rounded_in = source_.required(input);
      op.stream_is_own = source_.stream(input).grid == stream_.grid;
      return;
    }
    op.in = on(value);
    op.rounded_in = needs_point ? source_.required(input) : source_.optional(input, op.in);
  }
  void write(Value value, Module module, model::Operand operand, OperationGrids& op) {
    op.point = point(module, Slot::output);
    op.made = source_.required(op.point);
    const std::optional<Point> second = operand_point(layer_, operand);
    op.out = second ? source_.required(*second) : op.made;
    on(value) = op.out;
  }

  void step(const model::NormOp& op) {
    OperationGrids& grids = grids_.modules[op.module];
    read(op.module, op.in, true, grids);
    write(op.out, op.module, op.operand, grids);
  }
  void step(const model::LinearOp& op) {
    OperationGrids& grids = grids_.modules[op.module];
    read(op.module, op.in, false, grids);
    write(op.out, op.module, op.operand, grids);
  }
  void step(const model::RotateOp& op) {
    OperationGrids& grids = grids_.rotations[op.value];
    grids.in = grids.rounded_in = on(op.value);
    // What is not the attention's yet is rounded where a norm reads it.
    const std::optional<Point> operand = operand_point(layer_, op.operand);
    if (!operand && is_hadamard_next(op.value)) {
      grids.derived = true;
      grids.made = grids.out = on(op.value) = source_.turned(grids.in, op);
      return;
    }
    grids.point = operand ? *operand : reader_point(op.value);
    grids.made = grids.out = on(op.value) = source_.required(grids.point);
  }
  void step(const model::HadamardOp& op) {
    HadamardGrids& grids = grids_.hadamards[op.value];
    grids.point = hadamard_point(layer_, op);
    const auto product = grids_.products.find(Module::down);
    if (op.value == Value::gate && product != grids_.products.end() && product->second.exact) {
      grids.product = product->second;
    } else {
      grids.in = on(op.value);
    }
    grids.out = on(op.value) = source_.required(grids.point);
  }
  void step(const model::AttentionOp& op) {
    const PointGrid scores = source_.required(point(Module::qk_product, Slot::output));
    const AttentionGrids* lender =
        op.kv_from == 0 ? nullptr : &earlier_[static_cast<size_t>(layer_ - op.kv_from)].attention;
    grids_.attention = {
        .q = on(Value::q),
        .k = lender == nullptr ? on(Value::k) : lender->k,
        .v = lender == nullptr ? on(Value::v) : lender->v,
        .scores = scores,
        .capped = op.softcap == 0 ? scores : source_.required(point(Module::softcap, Slot::output)),
        .probabilities = source_.required(point(Module::pv_product, Slot::input)),
        .mixed = source_.required(point(Module::pv_product, Slot::output))};
    on(Value::mixed) = grids_.attention.mixed;
  }
  void step(const model::ActivateOp& op) {
    OperationGrids& grids = grids_.activations[op.module];
    read(op.module, Value::gate, false, grids);
    write(Value::gate, op.module, model::Operand::none, grids);
  }
  void step(const model::MultiplyOp& op) {
    ProductGrids& grids = grids_.products[op.module];
    grids = {
        .gate = on(op.value),
        .up = op.by == Value::layer_inputs ? source_.required(point(op.module, Slot::input2)) : on(op.by),
        .out = source_.required(point(op.module, Slot::input)),
        .exact = is_hadamard_next(op.value)};
    on(op.value) = grids.out;
  }
  void step(const model::RouteOp&) { grids_.router = on(Value::router); }
  void step(const model::DispatchOp& op) { on(Value::dispatched) = on(op.in); }
  void step(const model::MixExpertsOp& op) {
    grids_.mix = {.weights = source_.required(point(op.module, Slot::input)),
                  .experts = on(Value::expert_out),
                  .shared = on(Value::shared),
                  .gate = on(Value::shared_gate),
                  .out = source_.required(point(op.module, Slot::output))};
    on(op.out) = grids_.mix.out;
  }
  void step(const model::ScaleOp&) {
    const Point reader = source_.stream_reader(layer_, at_ + 1);
    const StreamGrid behind = source_.stream(layer_, at_ + 1);
    grids_.factor = FactorGrids{.before = stream_, .behind = behind, .reader = reader};
    stream_ = behind;
  }
  void step(const model::AddOp& op) {
    if (op.to != Value::residual) {
      SumGrids& grids = grids_.sums[op.module];
      grids = {.to = on(op.to), .in = on(op.in), .out = {}, .reader = reader_point(op.to)};
      grids.out = on(op.to) = source_.required(grids.reader);
      return;
    }
    const Point reader = source_.stream_reader(layer_, at_ + 1);
    const StreamGrid next = source_.stream(layer_, at_ + 1);
    grids_.adds[op.module] = {.stream = stream_, .update = on(op.in), .next = next, .reader = reader};
    stream_ = next;
  }
  template <typename Refused>
  void step(const Refused&) {}

  bool is_hadamard_next(Value value) const {
    for (size_t i = at_ + 1; i < operations_.size(); ++i) {
      const std::vector<Value> reads = accesses(operations_[i]).reads;
      if (std::ranges::find(reads, value) != reads.end())
        return std::holds_alternative<model::HadamardOp>(operations_[i]);
    }
    return false;
  }

  /// The point at which a norm or a linear map reads the tensor next.
  Point reader_point(Value value) const {
    for (size_t i = at_ + 1; i < operations_.size(); ++i) {
      if (const auto module = reading_module(operations_[i], value)) return point(*module, Slot::input);
    }
    fail(
        "model.layers.{}: {}: nothing says what its result is rounded to; accepted: float and fake "
        "arithmetic",
        layer_, operation_name(operations_[at_]));
  }

  const GridSource& source_;
  const std::vector<model::Operation>& operations_;
  const std::span<const LayerGrids> earlier_;
  const int64_t layer_;
  size_t at_ = 0;
  StreamGrid stream_;
  std::array<PointGrid, model::kValues> present_;
  LayerGrids grids_;
};

}  // namespace

GridSource::GridSource(const model::Model& model, QuantConfig qcfg, const ActRanges& ranges,
                       int32_t guard_bits)
    : config_(model.config),
      qcfg_(std::move(qcfg)),
      final_(ranges[{0, Module::final_norm, Slot::input}]),
      ranges_(complete_ranges(qcfg_, ranges, config_, "activation ranges")),
      guard_bits_(guard_bits) {
  if (!config_.layer_scalar) return;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    factors_.push_back(model.layers[static_cast<size_t>(layer)].vectors.at(Module::layer_scalar).front());
    if (std::isfinite(factors_.back()) && factors_.back() != 0) continue;
    fail("{}: is {}; integer arithmetic accepts a number other than 0",
         module_name(layer, Module::layer_scalar), factors_.back());
  }
}

PointGrid GridSource::required(const Point& point) const {
  const QuantSpec& spec = qcfg_[point];
  if (!spec.enabled()) {
    fail("{}: left in float ({} bits); integer arithmetic accepts 2 to 16 bits", point_name(point),
         spec.bits);
  }
  return checked(point, spec, ranges_[point].value_or(Range{}));
}

PointGrid GridSource::optional(const Point& point, const PointGrid& present) const {
  return qcfg_[point].enabled() ? checked(point, qcfg_[point], ranges_[point].value_or(Range{})) : present;
}

PointGrid GridSource::turned(const PointGrid& grid, const model::RotateOp& op) const {
  const double attention = (op.local ? *config_.local_rotary : config_.rotary).scaling.attention_factor;
  const double periods = std::floor(static_cast<double>(config_.context()) / op.position_original);
  const double factor = std::max(1.0, attention * (1 + op.position_beta * std::log1p(periods)));
  const double bound = grid.scale() * static_cast<double>(grid.reach()) * std::sqrt(2.0) * factor;
  const auto most = static_cast<float>(bound);
  return make_point_grid({.bits = 16, .symmetric = true}, {-most, most});
}

StreamGrid GridSource::stream(const Point& reader) const {
  const bool last = reader.module == Module::final_norm;
  if (!last) required(reader);
  const Range range = last ? final_range() : ranges_[reader].value();
  const StreamGrid stream{checked(reader, {.bits = 16}, range), guard_bits_};
  const int64_t held = int64_t{stream.format().hi} >> guard_bits_;
  if (guard_bits_ > 0 && stream.grid.reach() > held) {
    fail(
        "{}: the range [{}, {}] reaches {} of its steps from 0; integer arithmetic accepts {} for the "
        "residual "
        "stream",
        point_name(reader), range.lo, range.hi, stream.grid.reach(), held);
  }
  return stream;
}

StreamGrid GridSource::stream(int64_t layer, size_t first) const {
  const Point reader = stream_reader(layer, first);
  const int64_t last = reader.module == Module::final_norm ? config_.num_layers : reader.layer;
  StreamGrid grid = stream(reader);
  for (; layer <= last && layer < config_.num_layers; ++layer, first = 0) {
    const auto& operations = config_.graph.block(layer).operations;
    for (size_t i = first; i < operations.size(); ++i) {
      if (layer == last && reading_module(operations[i], Value::residual)) return grid;
      if (std::holds_alternative<model::ScaleOp>(operations[i]))
        grid.grid.grid.scale /= std::abs(factors_[static_cast<size_t>(layer)]);
    }
  }
  return grid;
}

Point GridSource::stream_reader(int64_t layer, size_t first) const {
  for (; layer < config_.num_layers; ++layer, first = 0) {
    const auto& operations = config_.graph.block(layer).operations;
    for (size_t i = first; i < operations.size(); ++i) {
      if (const auto module = reading_module(operations[i], Value::residual))
        return {layer, *module, Slot::input};
    }
  }
  return {0, Module::final_norm, Slot::input};
}

Range GridSource::final_range() const {
  if (final_) return *final_;
  const int64_t last = config_.num_layers - 1;
  const auto& operations = config_.graph.block(last).operations;
  Range reach;
  float scale = 1;
  for (size_t i = operations.size(); i-- > 0;) {
    const auto add_range = [&](const Point& point, float factor) {
      required(point);
      const Range range = ranges_[point].value();
      const float lo = scale * factor * range.lo, hi = scale * factor * range.hi;
      reach = {reach.lo + std::min(lo, hi), reach.hi + std::max(lo, hi)};
    };
    if (std::holds_alternative<model::ScaleOp>(operations[i])) scale *= factors_.back();
    if (const auto* add = std::get_if<model::AddOp>(&operations[i]);
        add != nullptr && add->to == Value::residual) {
      add_range({last, add->module, Slot::output}, add->factor);
    } else if (const auto module = reading_module(operations[i], Value::residual)) {
      add_range({last, *module, Slot::input}, 1);
      break;
    }
  }
  return reach;
}

LayerGrids GridSource::layer(std::span<const LayerGrids> earlier) const {
  return LayerWalk(*this, config_.graph.block(std::ssize(earlier)), earlier).walk();
}

}  // namespace qeval::quant
