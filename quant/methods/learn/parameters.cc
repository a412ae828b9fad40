#include "quant/methods/learn/parameters.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {
namespace {

constexpr double kSmallestLetScale = 0.01;
constexpr double kInitialBound = 4.0;  // σ(4) = 0.982
/// "0.self_attn.q_proj": the module's name behind "model.layers.".
std::string short_name(int64_t layer, Module module) {
  constexpr std::string_view kPrefix = "model.layers.";
  return module_name(layer, module).substr(kPrefix.size());
}

/// Channels that a module makes: rows of a linear map, width of a norm.
int64_t output_features(const model::BlockGraph& block, Module module) {
  if (const auto* linear = block.find<model::LinearOp>(module)) return linear->rows;
  return block.find<model::NormOp>(module)->width;
}

/// The names of the paper's code.
std::string_view scale_name(const LetEdge& edge) {
  if (edge.rows) return "qkt_smooth_scale";
  switch (edge.producer) {
    case Module::v:
      return "out_smooth_scale";
    case Module::up:
      return "fc2_smooth_scale";
    default:
      return edge.feeds(Module::q) ? "qkv_smooth_scale" : "fc1_smooth_scale";
  }
}

template <typename Real>
Parameter<Real> make_parameter(std::string name, ParameterGroup group, int64_t size, Real value) {
  return {std::move(name), group, std::vector<Real>(static_cast<size_t>(size), value),
          std::vector<Real>(static_cast<size_t>(size))};
}

}  // namespace

std::vector<LetEdge> let_edges(const model::BlockGraph& block, bool modified) {
  std::vector<LetEdge> norms, others;
  for (const model::ScaleEdge& edge : scale_edges(block)) {
    if (edge.producer == Module::up && !modified) continue;
    (is_norm(edge.producer) ? norms : others).push_back({edge});
  }
  // As the paper's code lists them: up → down, then the attention's.
  std::ranges::stable_partition(others, [](const LetEdge& edge) { return edge.producer == Module::up; });
  const model::AttentionOp& attention = block.attention();
  const bool normed = block.find<model::NormOp>(Module::q_norm) != nullptr ||
                      block.find<model::NormOp>(Module::k_norm) != nullptr;
  if (attention.heads == attention.kv_heads && !normed) others.push_back({{Module::q, {Module::k}}, true});
  norms.insert(norms.end(), others.begin(), others.end());
  return norms;
}

template <typename Real>
std::vector<Parameter<Real>*> BlockParameters<Real>::learned() {
  std::vector<Parameter<Real>*> all;
  const auto add = [&](auto& parameters) {
    for (Parameter<Real>& p : parameters) {
      if (!p.value.empty()) all.push_back(&p);
    }
  };
  add(let);
  add(upper);
  add(lower);
  add(factor);
  if (ranges_learned) {
    add(scale);
    add(offset);
  }
  add(code);
  return all;
}

template <typename Real>
void BlockParameters<Real>::clear_gradients(bool of_codes) {
  const auto clear = [](auto& parameters) {
    for (Parameter<Real>& p : parameters) std::fill(p.gradient.begin(), p.gradient.end(), Real{0});
  };
  clear(let);
  clear(upper);
  clear(lower);
  clear(factor);
  clear(scale);
  clear(offset);
  if (of_codes) clear(code);
}

template <typename Real>
void BlockParameters<Real>::bound_let() {
  const auto least = static_cast<Real>(kSmallestLetScale);
  for (Parameter<Real>& p : let) {
    for (Real& v : p.value) {
      // Zero has no sign to keep: it stays, and the loss shows it.
      if (std::abs(v) < least && v != 0) v = std::copysign(least, v);
    }
  }
}

namespace {

/// Those of LearnOptions::codes.
template <typename Real>
void add_learned_factors(const model::BlockGraph& block, const LearnOptions& options, const Point& weight,
                         const std::string& name, BlockParameters<Real>& parameters) {
  const QuantConfig& codes = *options.codes;
  if (const auto* norm = block.find<model::NormOp>(weight.module); norm != nullptr && norm->weighted) {
    parameters.let.push_back(
        {make_parameter<Real>(name + ".divisor", ParameterGroup::let, norm->weights(), 1),
         {{weight.module, {}}, false}});
  }
  const auto* linear = block.find<model::LinearOp>(weight.module);
  if (linear == nullptr || !codes[weight].enabled()) return;
  const QuantSpec& spec = codes[weight];
  const int64_t groups = spec.group_size > 0 ? (linear->cols + spec.group_size - 1) / spec.group_size : 1;
  const auto m = static_cast<size_t>(weight.module);
  parameters.codes[m] = spec;
  parameters.factor[m] =
      make_parameter<Real>(name + ".weight_quantizer.factor", ParameterGroup::lwc,
                           spec.per_channel || spec.group_size > 0 ? linear->rows * groups : 1, 1);
  if (options.coded == nullptr || spec.bits >= kFewestBitsThatStay) return;
  const model::LayerWeights& layer = options.coded->layers[static_cast<size_t>(weight.layer)];
  const QuantizedMatrix matrix = quantized_weight(layer.linears.at(weight.module).weight, spec);
  parameters.code[m] = make_parameter<Real>(name + ".weight_quantizer.code", ParameterGroup::code,
                                            matrix.rows * matrix.cols, 0);
  std::copy_n(matrix.codes.as<int8_t>(), matrix.rows * matrix.cols, parameters.code[m].value.begin());
}

}  // namespace

template <typename Real>
BlockParameters<Real> initial_parameters(const model::ModelConfig& config, const QuantConfig& qcfg,
                                         const ActRanges& ranges, int64_t layer,
                                         const LearnOptions& options) {
  BlockParameters<Real> parameters;
  parameters.ranges_learned = options.ranges;
  const model::BlockGraph& block = config.graph.block(layer);
  if (options.codes == nullptr) {
    for (LetEdge& edge : let_edges(block, options.modified)) {
      parameters.let.push_back(
          {make_parameter<Real>(fmt::format("{}.{}", layer, scale_name(edge)), ParameterGroup::let,
                                output_features(block, edge.producer), 1),
           std::move(edge)});
    }
  }
  for (int64_t m = 0; m < kBlockModules; ++m) {
    const auto module = static_cast<Module>(m);
    const std::string name = short_name(layer, module);
    if (options.codes != nullptr)
      add_learned_factors(block, options, {layer, module, Slot::weight}, name, parameters);
    for (int64_t s = 0; s < kSlots; ++s) {
      const auto slot = static_cast<Slot>(s);
      const Point point{layer, module, slot};
      if (!has_point(config, point) || !qcfg[point].enabled()) continue;
      const QuantSpec& spec = qcfg[point];
      if (slot == Slot::weight) {
        if (spec.group_size > 0 || spec.dynamic) {
          fail(
              "{}: learned methods take weights per tensor or per channel; accepted: group_size -1, "
              "is_dynamic False",
              point_name(point));
        }
        // Weights of 1, as a rotation leaves a norm's, are their own range: clipped, all of them would
        // shrink.
        if (is_norm(module) && (config.rotation || options.codes != nullptr)) continue;
        const int64_t grids = spec.per_channel ? output_features(block, module) : 1;
        const auto bound = [&](const char* which) {
          return make_parameter<Real>(fmt::format("{}.weight_quantizer.{}", name, which), ParameterGroup::lwc,
                                      grids, static_cast<Real>(kInitialBound));
        };
        parameters.upper[static_cast<size_t>(m)] = bound("upbound_factor");
        parameters.lower[static_cast<size_t>(m)] = bound("lowbound_factor");
        continue;
      }
      if (spec.dynamic) {
        fail("{}: learned methods need static ranges; accepted: is_dynamic False", point_name(point));
      }
      const std::optional<Range>& range = ranges[point];
      if (!range) fail("{}: no range to start from", point_name(point));
      const Grid grid = make_grid(spec, *range);
      const size_t index = BlockParameters<Real>::slot_index(module, slot);
      const std::string quantizer = fmt::format("{}.{}_quantizer", name, slot_name(slot));
      parameters.scale[index] =
          make_parameter<Real>(quantizer + ".scale", ParameterGroup::lrl, 1, static_cast<Real>(grid.scale));
      parameters.offset[index] = make_parameter<Real>(quantizer + ".offset", ParameterGroup::lrl, 1,
                                                      static_cast<Real>(grid.zero_point));
    }
  }
  return parameters;
}

void export_ranges(const BlockParameters<float>& parameters, const model::ModelConfig& config,
                   const QuantConfig& qcfg, int64_t layer, ActRanges& ranges) {
  for (int64_t m = 0; m < kBlockModules; ++m) {
    for (const Slot slot : {Slot::input, Slot::input2, Slot::output}) {
      const Point point{layer, static_cast<Module>(m), slot};
      const size_t index = BlockParameters<float>::slot_index(point.module, slot);
      if (!has_point(config, point) || parameters.scale[index].value.empty()) continue;
      const CodeLimits limits = code_limits(qcfg[point].bits, qcfg[point].symmetric);
      const float scale = std::clamp(parameters.scale[index].value[0], kMinScale, kMaxScale);
      const float offset = parameters.offset[index].value[0];
      ranges[point] = Range{(static_cast<float>(limits.q_min) - offset) * scale,
                            (static_cast<float>(limits.q_max) - offset) * scale};
    }
  }
  // Tensors that are not quantized where they are read have the range of where they were written.
  for (int64_t m = 0; m < kBlockModules; ++m) {
    const Point point{layer, static_cast<Module>(m), Slot::input};
    const bool product = point.module == Module::qk_product || point.module == Module::pv_product;
    if (product || !has_point(config, point) || qcfg[point].enabled()) continue;
    const Point source = made_at(config, point);
    if (!(source == point) && qcfg[source].enabled()) ranges[point] = ranges[source];
  }
}

#define QEVAL_INSTANTIATE(Real)                                                                    \
  template struct BlockParameters<Real>;                                                           \
  template BlockParameters<Real> initial_parameters(const model::ModelConfig&, const QuantConfig&, \
                                                    const ActRanges&, int64_t, const LearnOptions&);
QEVAL_INSTANTIATE(float)
QEVAL_INSTANTIATE(double)
#undef QEVAL_INSTANTIATE

}  // namespace qeval::quant
