#pragma once

#include <string>
#include <vector>

namespace qeval::fuzz {

/// A tiny quantized folder: its config.json, and its model.safetensors.
struct QuantizedSeed {
  std::string name, config, weights;
};
/// One or more of each method.
std::vector<QuantizedSeed> quantized_seeds();

}  // namespace qeval::fuzz
