#include "quant/methods/weight_rounding.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "quant/calibrate/block_inputs.h"
#include "quant/methods/awq.h"
#include "quant/methods/gptq.h"

namespace qeval::quant {
namespace {

constexpr int kMostBits = 8;

/// A block's maps whose weights become codes, by the first of those that share their input.
using SharedInputs = std::map<Module, std::vector<Module>>;

/// AWQ does not clip queries and keys, whose errors meet in a product.
bool is_clipped(Module module) {
  return module != Module::q && module != Module::k;
}

/// What needs to know the maps' inputs: GPTQ, and grids of WeightRange::output.
void round_by_inputs(EditableModel& model, const QuantConfig& qcfg, const Samples& samples,
                     const WeightRounding& rounding, const std::function<void(int64_t, int64_t)>& progress) {
  std::map<Module, InputProducts> products;
  SharedInputs readers;
  const BlockInputs visitor{
      [&](int64_t layer, std::span<const model::Arithmetic::Target> targets, const model::Tensor& input) {
        std::vector<Module> modules;
        for (const auto& target : targets) {
          if (qcfg[{layer, target.op->module, Slot::weight}].bits <= kMostBits)
            modules.push_back(target.op->module);
        }
        if (modules.empty()) return;
        const Module first = modules.front();
        readers[first] = std::move(modules);
        products[first].add(input.row<float>(0), input.rows, input.cols);
      },
      [&](int64_t layer) {
        std::vector<Module> inputs;
        for (const auto& [first, modules] : readers) inputs.push_back(first);
        std::vector<std::vector<QuantizedMatrix>> codes(inputs.size());
        parallel_tasks(std::ssize(inputs), [&](int64_t i) {
          const auto at = static_cast<size_t>(i);
          const RowMatrix& lower = products.at(inputs[at]).lower();
          std::optional<GptqFactor> factor;
          if (rounding.rounding == Rounding::gptq)
            factor = gptq_factor(lower, point_name({layer, inputs[at], Slot::input}));
          // Each fused part is a map of its own.
          for (const Module module : readers.at(inputs[at])) {
            const model::Matrix& weight = model.weight(layer, module);
            const QuantSpec& spec = qcfg[{layer, module, Slot::weight}];
            const bool clipped = rounding.range == WeightRange::output && is_clipped(module);
            const std::vector<Grid> grids =
                clipped ? output_grids(weight, spec, lower) : weight_grids(weight, spec, rounding.range);
            codes[at].push_back(factor ? gptq_round(weight, spec, grids, *factor)
                                       : quantize_matrix(weight, spec, grids));
          }
        });
        for (size_t i = 0; i < inputs.size(); ++i) {
          for (size_t m = 0; m < codes[i].size(); ++m)
            model.set_codes(layer, readers.at(inputs[i])[m], codes[i][m]);
        }
        products.clear();
        readers.clear();
      }};
  for_each_block_inputs(model.model(), samples, visitor, progress);
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
  require_operations(model.model().config, "rounding to stored codes",
                     [](const model::Operation& operation) { return !model::is_beyond_dense(operation); });
  if (rounding.needs_samples()) {
    round_by_inputs(model, qcfg, samples, rounding, progress);
    return;
  }
  const int64_t layers = model.model().config.num_layers;
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const auto& [module, linear] : model.model().layers[static_cast<size_t>(layer)].linears) {
      const QuantSpec& spec = qcfg[{layer, module, Slot::weight}];
      if (spec.bits > kMostBits) continue;
      model.set_codes(
          layer, module,
          quantize_matrix(linear.weight, spec, weight_grids(linear.weight, spec, rounding.range)));
    }
    if (progress) progress(layer + 1, layers);
  }
}

}  // namespace qeval::quant
