#include "quant/methods/weight_rounding.h"

#include <algorithm>
#include <compare>
#include <map>
#include <optional>

#include "base/error.h"
#include "quant/calibrate/block_inputs.h"
#include "quant/methods/awq.h"
#include "quant/methods/gptq.h"

namespace qeval::quant {
namespace {

constexpr int kMostBits = 8;

/// A map of a block: of experts, one of them.
struct MapOfBlock {
  Module module;
  int64_t expert;
  auto operator<=>(const MapOfBlock&) const = default;
};
/// Those whose weights become codes, by the first of those that share their input.
using SharedInputs = std::map<MapOfBlock, std::vector<MapOfBlock>>;

/// AWQ does not clip queries and keys, whose errors meet in a product.
bool is_clipped(Module module) {
  return module != Module::q && module != Module::k;
}

/// Experts that no token was given to meet no input: their weights are rounded to nearest.
void round_unmet_experts(EditableModel& model, const QuantConfig& qcfg, int64_t layer,
                         const WeightRounding& rounding) {
  const WeightRange range = rounding.range == WeightRange::output ? WeightRange::minmax : rounding.range;
  for (const auto& [module, experts] : model.model().layers[static_cast<size_t>(layer)].experts) {
    const QuantSpec& spec = qcfg[{layer, module, Slot::weight}];
    for (size_t e = 0; spec.bits <= kMostBits && e < experts.size(); ++e) {
      const model::Matrix& weight = experts[e].weight;
      if (weight.stored.coded() != nullptr) continue;
      model.set_codes(layer, module, quantize_matrix(weight, spec, weight_grids(weight, spec, range)),
                      static_cast<int64_t>(e));
    }
  }
}

/// What needs to know the maps' inputs: GPTQ, and grids of WeightRange::output.
void round_by_inputs(EditableModel& model, const QuantConfig& qcfg, const Samples& samples,
                     const WeightRounding& rounding, const std::function<void(int64_t, int64_t)>& progress) {
  std::map<MapOfBlock, InputProducts> products;
  SharedInputs readers;
  const auto add = [&](int64_t layer, std::span<const model::Arithmetic::Target> targets, int64_t expert,
                       const float* rows, int64_t count, int64_t cols) {
    std::vector<MapOfBlock> maps;
    for (const auto& target : targets) {
      if (qcfg[{layer, target.op->module, Slot::weight}].bits <= kMostBits)
        maps.push_back({target.op->module, expert});
    }
    if (maps.empty()) return;
    const MapOfBlock first = maps.front();
    readers[first] = std::move(maps);
    products[first].add(rows, count, cols);
  };
  const BlockInputs visitor{
      [&](int64_t layer, std::span<const model::Arithmetic::Target> targets, const model::Tensor& input) {
        const int64_t skipped = rounding.skip_first ? 1 : 0;
        if (input.rows > skipped)
          add(layer, targets, 0, input.row<float>(skipped), input.rows - skipped, input.cols);
      },
      [&](int64_t layer) {
        std::vector<MapOfBlock> inputs;
        for (const auto& [first, maps] : readers) inputs.push_back(first);
        std::vector<std::vector<QuantizedMatrix>> codes(inputs.size());
        parallel_tasks(std::ssize(inputs), [&](int64_t i) {
          const auto at = static_cast<size_t>(i);
          const RowMatrix& lower = products.at(inputs[at]).lower();
          std::optional<GptqFactor> factor;
          if (rounding.rounding == Rounding::gptq)
            factor = gptq_factor(lower, point_name({layer, inputs[at].module, Slot::input}));
          // Each fused part is a map of its own.
          for (const auto& [module, expert] : readers.at(inputs[at])) {
            const model::Matrix& weight = model.weight(layer, module, expert);
            const QuantSpec& spec = qcfg[{layer, module, Slot::weight}];
            const bool clipped = rounding.range == WeightRange::output && is_clipped(module);
            const std::vector<Grid> grids =
                clipped ? output_grids(weight, spec, lower) : weight_grids(weight, spec, rounding.range);
            codes[at].push_back(factor ? gptq_round(weight, spec, grids, *factor)
                                       : quantize_matrix(weight, spec, grids));
          }
        });
        for (size_t i = 0; i < inputs.size(); ++i) {
          for (size_t m = 0; m < codes[i].size(); ++m) {
            const MapOfBlock& map = readers.at(inputs[i])[m];
            model.set_codes(layer, map.module, codes[i][m], map.expert);
          }
        }
        round_unmet_experts(model, qcfg, layer, rounding);
        products.clear();
        readers.clear();
      },
      add};
  for_each_block_inputs(model.model(), "rounding by inputs", samples, visitor, progress);
}

}  // namespace

Rounding parse_rounding(std::string_view name) {
  if (name == "nearest") return Rounding::nearest;
  if (name == "gptq") return Rounding::gptq;
  fail("{}: unknown rounding; accepted: {}", printable(name), kRoundingNames);
}

std::string_view name(Rounding rounding) {
  return rounding == Rounding::nearest ? "nearest" : "gptq";
}

bool has_codes(const QuantConfig& qcfg, const model::ModelConfig& config) {
  return std::ranges::any_of(all_points(config), [&](const Point& point) {
    return point.slot == Slot::weight && is_linear(point.module) && !is_after_blocks(point.module) &&
           qcfg[point].bits <= kMostBits;
  });
}

void round_weights(EditableModel& model, const QuantConfig& qcfg, const Samples& samples,
                   const WeightRounding& rounding, const std::function<void(int64_t, int64_t)>& progress) {
  if (!rounding.makes_codes()) return;
  if (rounding.needs_samples()) {
    round_by_inputs(model, qcfg, samples, rounding, progress);
    return;
  }
  const int64_t layers = model.model().config.num_layers;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const model::LayerWeights& weights = model.model().layers[static_cast<size_t>(layer)];
    const auto round = [&](Module module, const model::Matrix& weight, int64_t expert) {
      const QuantSpec& spec = qcfg[{layer, module, Slot::weight}];
      if (spec.bits > kMostBits) return;
      model.set_codes(layer, module,
                      quantize_matrix(weight, spec, weight_grids(weight, spec, rounding.range)), expert);
    };
    for (const auto& [module, linear] : weights.linears) round(module, linear.weight, 0);
    for (const auto& [module, experts] : weights.experts) {
      for (size_t e = 0; e < experts.size(); ++e) round(module, experts[e].weight, static_cast<int64_t>(e));
    }
    if (progress) progress(layer + 1, layers);
  }
}

}  // namespace qeval::quant
