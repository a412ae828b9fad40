#include "quant/integer/prepare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>

#include "base/error.h"
#include "base/parallel.h"
#include "model/rotary.h"

namespace qeval::quant {

using model::ModelConfig;

namespace {

size_t index(int64_t i) {
  return static_cast<size_t>(i);
}

/// Builds the layers of one model; the settings it reads are checked as it goes.
class Preparer {
 public:
  Preparer(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges, int64_t max_positions,
           int32_t guard_bits)
      : model_(model),
        config_(model.config),
        qcfg_(integer_config(qcfg)),
        given_(ranges),
        ranges_(complete_ranges(qcfg, ranges, model.config, "activation ranges")),
        positions_(max_positions),
        guard_bits_(guard_bits) {}

  PreparedModel prepare() {
    require_papers_block(config_, "integer arithmetic");
    PreparedModel result;
    IntegerModel& integers = result.integers;
    integers.hidden_size = config_.hidden_size;
    integers.head_dim = config_.head_dim;
    integers.num_heads = config_.num_heads;
    integers.num_kv_heads = config_.num_kv_heads;
    integers.rotary_half = config_.rotary.dim / 2;
    integers.positions = positions_;
    integers.angles = angles();
    integers.layers.resize(index(config_.num_layers));
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      result.grids.layers.push_back(layer_grids(layer));
    }
    // Of several layers that are refused, the first is named.
    std::vector<std::exception_ptr> refusals(index(config_.num_layers));
    parallel_tasks(config_.num_layers, [&](int64_t layer) {
      try {
        integers.layers[index(layer)] = block(layer, result.grids.layers[index(layer)]);
      } catch (const Error&) {
        refusals[index(layer)] = std::current_exception();
      }
      // Float weights are not read again, but for the embedding's rows.
      if (model_.checkpoint) model_.checkpoint->release_pages();
    });
    for (const std::exception_ptr& refusal : refusals) {
      if (refusal) std::rethrow_exception(refusal);
    }
    head(result);
    if (model_.checkpoint) model_.checkpoint->release_pages();
    return result;
  }

 private:
  /// The grid of an activation point, which integers cannot do without.
  PointGrid required(int64_t layer, Module module, Slot slot) const {
    const Point point{layer, module, slot};
    const QuantSpec& spec = qcfg_[point];
    if (!spec.enabled()) {
      fail("{}: left in float ({} bits); integer arithmetic accepts 2 to 16 bits", point_name(point),
           spec.bits);
    }
    return checked(point, spec, ranges_[point]);
  }

  /// The grid of a point that may be left alone: then its tensor stays on the grid it has.
  PointGrid optional(int64_t layer, Module module, Slot slot, const PointGrid& present) const {
    const Point point{layer, module, slot};
    return qcfg_[point].enabled() ? checked(point, qcfg_[point], ranges_[point]) : present;
  }

  static PointGrid checked(const Point& point, const QuantSpec& spec, const std::optional<Range>& range) {
    if (spec.dynamic) {
      fail("{}: a dynamic range needs a floating-point scale; integer arithmetic accepts static ranges",
           point_name(point));
    }
    const PointGrid grid = make_point_grid(spec, range.value());
    if (std::abs(grid.grid.zero_point) > kFarthestZeroPoint) {
      fail(
          "{}: the range [{}, {}] lies too far from 0 for its width; integer arithmetic accepts a zero point "
          "of "
          "at most 2^23",
          point_name(point), range->lo, range->hi);
    }
    return grid;
  }

  /// The residual stream where this norm reads it: always 16 bits and the guard bits, on the norm's input
  /// range.
  StreamGrid residual(int64_t layer, Module norm) const {
    const Point point{layer, norm, Slot::input};
    if (norm != Module::final_norm) required(layer, norm, Slot::input);
    const Range range = norm == Module::final_norm ? final_range() : ranges_[point].value();
    const StreamGrid stream{checked(point, {.bits = 16}, range), guard_bits_};
    const StreamFormat format = stream.format();
    const int64_t held = int64_t{format.hi} >> guard_bits_;
    if (guard_bits_ > 0 && stream.grid.reach() > held) {
      fail(
          "{}: the range [{}, {}] reaches {} of its steps from 0; integer arithmetic accepts {} for the "
          "residual "
          "stream",
          point_name(point), range.lo, range.hi, stream.grid.reach(), held);
    }
    return stream;
  }

  /// The final norm's input: its own range where known, else all that the last addition can reach.
  Range final_range() const {
    if (const auto& known = given_[{0, Module::final_norm, Slot::input}]) return *known;
    const int64_t last = config_.num_layers - 1;
    const Range stream = ranges_[{last, Module::post_attention_norm, Slot::input}].value();
    required(last, Module::down, Slot::output);
    const Range update = ranges_[{last, Module::down, Slot::output}].value();
    return {stream.lo + update.lo, stream.hi + update.hi};
  }

  LayerGrids layer_grids(int64_t i) const {
    const auto output = [&](Module module) { return required(i, module, Slot::output); };
    return {.stream = residual(i, Module::input_norm),
            .normed = output(Module::input_norm),
            .q = output(Module::q),
            .k = output(Module::k),
            // Nothing but the mix reads it.
            .v = required(i, Module::pv_product, Slot::input2),
            .rotated_q = required(i, Module::qk_product, Slot::input),
            .rotated_k = required(i, Module::qk_product, Slot::input2),
            .scores = output(Module::qk_product),
            .probabilities = required(i, Module::pv_product, Slot::input),
            .mixed = output(Module::pv_product),
            .attention = output(Module::o),
            .middle_stream = residual(i, Module::post_attention_norm),
            .mlp_normed = output(Module::post_attention_norm),
            .gate = output(Module::gate),
            .activated = output(Module::activation),
            .up = output(Module::up),
            .product = required(i, Module::down, Slot::input),
            .mlp = output(Module::down)};
  }

  IntegerNorm block_norm(int64_t layer, Module module, const model::NormWeights& weights,
                         const StreamGrid& stream, const PointGrid& output) const {
    const QuantSpec& spec = qcfg_[{layer, module, Slot::weight}];
    if (!spec.enabled()) {
      fail("{}.weight: left in float; integer arithmetic accepts 2 to 16 bits", module_name(layer, module));
    }
    const bool layer_norm = config_.norm == model::NormKind::layer;
    // RMSNorm in the blocks has no eps once quantized (QUANTIZATION.md §2).
    return prepare_norm(weights, spec, layer_norm, layer_norm ? config_.norm_eps : 0, stream,
                        required(layer, module, Slot::input), output);
  }

  IntegerMatrix linear(int64_t layer, Module module, const model::LinearWeights& weights,
                       const PointGrid& present) const {
    // The down projection's input point was applied by the product that made it.
    const PointGrid input = module == Module::down ? present : optional(layer, module, Slot::input, present);
    IntegerMatrix matrix = prepare_linear(weights, qcfg_[{layer, module, Slot::weight}], input,
                                          required(layer, module, Slot::output));
    matrix.input_table = regrid(present, input);
    return matrix;
  }

  CodeTable activation(int64_t layer, const PointGrid& gate, const PointGrid& output) const {
    const PointGrid input = optional(layer, Module::activation, Slot::input, gate);
    const auto rounded = [&](float x) { return input.value(input.code(x)); };
    if (config_.activation != model::Activation::silu) {
      // The erf form, whatever the configuration says (QUANTIZATION.md §2).
      return make_table(gate, output, [&](float x) {
        const double u = rounded(x);
        return static_cast<float>(0.5 * u * (1 + std::erf(u / std::sqrt(2.0))));
      });
    }
    const PointGrid none;
    const bool round_sigmoid = qcfg_[{layer, Module::activation, Slot::input2}].enabled();
    const PointGrid sigmoid = optional(layer, Module::activation, Slot::input2, none);
    return make_table(gate, output, [&](float x) {
      const float u = rounded(x);
      const auto s = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(u))));
      return u * (round_sigmoid ? sigmoid.value(sigmoid.code(s)) : s);
    });
  }

  IntegerLayer block(int64_t i, const LayerGrids& g) const {
    const model::LayerWeights& w = model_.layers[index(i)];
    IntegerLayer layer;
    layer.norms[Module::input_norm] =
        block_norm(i, Module::input_norm, w.norm(Module::input_norm), g.stream, g.normed);
    layer.norms[Module::post_attention_norm] = block_norm(
        i, Module::post_attention_norm, w.norm(Module::post_attention_norm), g.middle_stream, g.mlp_normed);
    const auto set = [&](Module module, const PointGrid& input) {
      layer.linears[module] = linear(i, module, w.linear(module), input);
    };
    set(Module::q, g.normed);
    set(Module::k, g.normed);
    set(Module::v, g.normed);
    set(Module::o, g.mixed);
    set(Module::gate, g.mlp_normed);
    set(Module::up, g.mlp_normed);
    set(Module::down, g.product);

    layer.rotary[0] = prepare_rotary(g.q, g.rotated_q);
    layer.rotary[1] = prepare_rotary(g.k, g.rotated_k);
    layer.linears[Module::v].output_table = regrid(required(i, Module::v, Slot::output), g.v);
    layer.attention = prepare_attention(config_.head_dim, positions_, g.rotated_q, g.rotated_k, g.scores,
                                        g.probabilities, g.v, g.mixed);
    layer.activation = activation(i, g.gate, g.activated);
    layer.product = prepare_product(g.activated, g.up, g.product);

    const StreamGrid after =
        i + 1 < config_.num_layers ? residual(i + 1, Module::input_norm) : residual(0, Module::final_norm);
    layer.adds[Module::o] =
        prepare_add(g.stream, g.attention, g.middle_stream, point_name({i, Module::o, Slot::output}));
    layer.adds[Module::down] =
        prepare_add(g.middle_stream, g.mlp, after, point_name({i, Module::down, Slot::output}));
    return layer;
  }

  void head(PreparedModel& result) const {
    const model::NormWeights& norm = model_.final_norm;
    const bool layer_norm = config_.norm == model::NormKind::layer;
    float bound = 0;
    float bias = 0;
    for (const float w : norm.weight) bound = std::max(bound, std::abs(w));
    for (const float b : norm.bias) bias = std::max(bias, std::abs(b));
    bound = bound * std::sqrt(static_cast<float>(config_.hidden_size)) + bias;
    const PointGrid widest = make_point_grid({.bits = 16, .symmetric = true}, {-bound, bound});
    const PointGrid reader = optional(0, Module::head, Slot::input, widest);
    const PointGrid output = optional(0, Module::final_norm, Slot::output, reader);
    const QuantSpec& weight = qcfg_[{0, Module::final_norm, Slot::weight}];
    const StreamGrid stream = residual(0, Module::final_norm);
    result.integers.final_norm =
        prepare_norm(norm, weight, layer_norm, config_.norm_eps, stream,
                     optional(0, Module::final_norm, Slot::input, stream.grid), output);
    result.integers.final_norm.output_table = regrid(output, reader);
    result.grids.stream = stream;
    result.grids.normed = reader;
    result.integers.head =
        prepare_head(model_.head, qcfg_[{0, Module::head, Slot::weight}], reader, result.logit_scale);
  }

  std::vector<int32_t> angles() const {
    const model::RotaryTable table(config_.rotary, positions_);
    const int64_t half = table.half();
    std::vector<int32_t> fixed(index(positions_ * 2 * half));
    for (int64_t p = 0; p < positions_; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const auto to_fixed = [](float x) {
          return static_cast<int32_t>(std::lround(std::ldexp(static_cast<double>(x), kAngleBits)));
        };
        fixed[index(p * 2 * half + i)] = to_fixed(table.cosines(p)[i]);
        fixed[index(p * 2 * half + half + i)] = to_fixed(table.sines(p)[i]);
      }
    }
    return fixed;
  }

  const model::Model& model_;
  const ModelConfig& config_;
  const QuantConfig qcfg_;
  const ActRanges& given_;
  ActRanges ranges_;
  int64_t positions_;
  int32_t guard_bits_;
};

}  // namespace

QuantConfig integer_config(QuantConfig qcfg) {
  QuantSpec& norm = qcfg[{0, Module::final_norm, Slot::weight}];
  if (!norm.enabled()) norm = {.bits = 16, .symmetric = true};
  QuantSpec& head = qcfg[{0, Module::head, Slot::weight}];
  if (!head.enabled()) head = {.bits = 8, .symmetric = true, .per_channel = true};
  return qcfg;
}

PreparedModel prepare_model(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                            int64_t max_positions, int32_t guard_bits) {
  return Preparer(model, qcfg, ranges, max_positions, guard_bits).prepare();
}

}  // namespace qeval::quant
