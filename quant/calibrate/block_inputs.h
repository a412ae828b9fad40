#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "model/arithmetic.h"
#include "quant/calibrate/calibration.h"

namespace qeval::quant {

/// What for_each_block_inputs hands over.
struct BlockInputs {
  /// What the float model feeds the linear maps `targets` of a block, all of which read it: a sample's rows,
  /// for one sample after another.
  std::function<void(int64_t layer, std::span<const model::Arithmetic::Target> targets,
                     const model::Tensor& input)>
      input;
  /// A block has been through all samples: its weights are not read again, and may be replaced.
  std::function<void(int64_t layer)> end_of_block;
  /// The same of maps of experts, one expert's rows [count, cols] after the other; may be left out.
  std::function<void(int64_t layer, std::span<const model::Arithmetic::Target> targets, int64_t expert,
                     const float* rows, int64_t count, int64_t cols)>
      expert_input{};
};

/// Runs the float model over the samples block by block, all samples through one block before the next one
/// begins. In memory are the residual streams of all tokens (float32) and one sample's activations. Models
/// whose blocks hand on more than the residual stream are an Error that names `what` asks: layers' own
/// inputs, keys and values of earlier layers, several streams. `progress`, where given, is called with blocks
/// done and in all.
void for_each_block_inputs(const model::Model& model, std::string_view what, const Samples& samples,
                           const BlockInputs& visitor,
                           const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace qeval::quant
