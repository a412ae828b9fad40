#pragma once

#include "quant/grid/qcfg.h"

namespace qeval::quant {

/// Ranges about as wide as a TinyModel's activations.
inline ActRanges tiny_ranges(const model::ModelConfig& config) {
  ActRanges ranges(config.num_layers);
  for (const Point& point : all_points(config)) {
    if (point.slot == Slot::weight) continue;
    Range range{-4.5F, 4};
    if (point.module == Module::qk_product && point.slot == Slot::output) range = {-30, 35};
    if (point.module == Module::pv_product && point.slot == Slot::input) range = {0, 1};
    if (is_activation(point.module) && point.slot == Slot::input2) range = {0, 1};
    if (point.module == Module::expert_mix && point.slot == Slot::input) range = {0, 1};
    if (point.module == Module::o || point.module == Module::down || point.module == Module::expert_down) {
      range = {-9, 10};
    }
    if (is_norm(point.module) && point.slot == Slot::input) {
      range = {-6.0F - static_cast<float>(point.layer), 7};
    }
    ranges[point] = range;
  }
  return ranges;
}

}  // namespace qeval::quant
