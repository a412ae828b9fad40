#pragma once

#include <string_view>

#include "model/config.h"
#include "quant/methods/learn/learn.h"

namespace qeval::quant {

/// The preset that learns from a rotated model whose weights are codes already: what goes with it besides
/// learning (rotations, position 0 apart, GPTQ) is the caller's to set.
inline constexpr std::string_view kNearLossless = "near-lossless";

/// Whether the method has a preset of this name.
bool has_preset(std::string_view preset, LearnMethod method);

/// Settings to start from: "paper" has the paper's rates for the model's family and its number of epochs
/// (docs/specification.md#methods; days on a CPU), "laptop" few epochs for minutes; "distill" (mobilequant
/// only) learns on the divergence of the next-token distributions, with higher rates, relative for the
/// ranges: half an hour for a model of 135 M parameters; "near-lossless" (likewise) the ranges, the scales
/// of codes and, of fewer than 8 bits, these, with rates that go by the weights' bits. Anything else is an
/// Error that lists them.
LearnSettings preset_settings(std::string_view preset, LearnMethod method, const model::ModelConfig& config,
                              int weight_bits);
/// Calibration samples that a preset draws from a text, and their tokens. Errors as above.
struct SampleSize {
  int64_t count = 32, length = 512;
};
SampleSize preset_samples(std::string_view preset, LearnMethod method);

}  // namespace qeval::quant
