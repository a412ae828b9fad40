#include "quant/train/parameters.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qeval::quant {
namespace {

constexpr double kSmallestLetScale = 0.01;
constexpr double kInitialBound = 4.0;  // σ(4) = 0.982
constexpr std::array<const char*, kLetPairs> kLetNames{
    "qkv_smooth_scale", "fc1_smooth_scale", "fc2_smooth_scale", "out_smooth_scale", "qkt_smooth_scale"};

/// "0.self_attn.q_proj": the module's name behind "model.layers.".
std::string short_name(int64_t layer, Module module) {
  constexpr std::string_view kPrefix = "model.layers.";
  return module_name(layer, module).substr(kPrefix.size());
}

int64_t let_size(const model::ModelConfig& config, LetPair pair, const LearnOptions& options) {
  const bool multi_head = config.num_heads == config.num_kv_heads;
  switch (pair) {
    case LetPair::norm_qkv:
    case LetPair::norm_gate_up:
      return config.hidden_size;
    case LetPair::up_down:
      return options.modified ? config.intermediate_size : 0;
    case LetPair::v_o:
    case LetPair::q_k:
      break;
  }
  return multi_head ? config.num_heads * config.head_dim : 0;
}

int64_t output_features(const model::ModelConfig& config, Module module) {
  switch (module) {
    case Module::q:
      return config.num_heads * config.head_dim;
    case Module::k:
    case Module::v:
      return config.num_kv_heads * config.head_dim;
    case Module::gate:
    case Module::up:
      return config.intermediate_size;
    default:
      return config.hidden_size;
  }
}

template <typename Real>
Parameter<Real> make_parameter(std::string name, ParameterGroup group, int64_t size, Real value) {
  return {std::move(name), group, std::vector<Real>(static_cast<size_t>(size), value),
          std::vector<Real>(static_cast<size_t>(size))};
}

}  // namespace

std::string_view pair_name(LetPair pair) {
  constexpr std::array<std::string_view, kLetPairs> kWords{"norm to q, k, v", "norm to gate, up",
                                                           "up to down", "v to o", "q to k"};
  return kWords[static_cast<size_t>(pair)];
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
  if (ranges_learned) {
    add(scale);
    add(offset);
  }
  return all;
}

template <typename Real>
void BlockParameters<Real>::clear_gradients() {
  const auto clear = [](auto& parameters) {
    for (Parameter<Real>& p : parameters) std::fill(p.gradient.begin(), p.gradient.end(), Real{0});
  };
  clear(let);
  clear(upper);
  clear(lower);
  clear(scale);
  clear(offset);
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

template <typename Real>
BlockParameters<Real> initial_parameters(const model::ModelConfig& config, const QuantConfig& qcfg,
                                         const ActRanges& ranges, int64_t layer,
                                         const LearnOptions& options) {
  BlockParameters<Real> parameters;
  parameters.ranges_learned = options.ranges;
  for (int64_t i = 0; i < kLetPairs; ++i) {
    const auto index = static_cast<size_t>(i);
    parameters.let[index] =
        make_parameter<Real>(fmt::format("{}.{}", layer, kLetNames[index]), ParameterGroup::let,
                             let_size(config, static_cast<LetPair>(i), options), 1);
  }
  for (int64_t m = 0; m < kBlockModules; ++m) {
    const auto module = static_cast<Module>(m);
    const std::string name = short_name(layer, module);
    for (int64_t s = 0; s < kSlots; ++s) {
      const auto slot = static_cast<Slot>(s);
      const Point point{layer, module, slot};
      if (!has_slot(config, module, slot) || !qcfg[point].enabled()) continue;
      const QuantSpec& spec = qcfg[point];
      if (slot == Slot::weight) {
        if (spec.group_size > 0 || spec.dynamic) {
          fail(
              "{}: learned methods take weights per tensor or per channel; accepted: group_size -1, "
              "is_dynamic False",
              point_name(point));
        }
        const int64_t grids = spec.per_channel ? output_features(config, module) : 1;
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
      if (!has_slot(config, point.module, slot) || parameters.scale[index].value.empty()) continue;
      const CodeLimits limits = code_limits(qcfg[point].bits, qcfg[point].symmetric);
      const float scale = std::clamp(parameters.scale[index].value[0], kMinScale, kMaxScale);
      const float offset = parameters.offset[index].value[0];
      ranges[point] = Range{(static_cast<float>(limits.q_min) - offset) * scale,
                            (static_cast<float>(limits.q_max) - offset) * scale};
    }
  }
  // Tensors that are not quantized where they are read have the range of where they were written.
  using Pair = std::pair<Module, Module>;
  for (const auto& [to, from] :
       {Pair{Module::q, Module::input_norm}, Pair{Module::k, Module::input_norm},
        Pair{Module::v, Module::input_norm}, Pair{Module::o, Module::pv_product},
        Pair{Module::gate, Module::post_attention_norm}, Pair{Module::up, Module::post_attention_norm},
        Pair{Module::activation, Module::gate}}) {
    const Point point{layer, to, Slot::input};
    const Point source{layer, from, Slot::output};
    if (!qcfg[point].enabled() && qcfg[source].enabled()) ranges[point] = ranges[source];
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
