#pragma once

#include <string_view>
#include <vector>

#include "quant/grid/points.h"
#include "quant/methods/editable_model.h"
#include "quant/methods/warnings.h"

namespace qeval::quant {

/// Which pairs of linears are smoothed (docs/specification.md#methods): the original method's norm → q, k, v
/// and norm → gate, up; or the paper's, v → o (where v has as many outputs as o has inputs) and up → down as
/// well.
enum class Variant : uint8_t { modified, original };
Variant parse_variant(std::string_view name);
std::string_view name(Variant variant);

/// SmoothQuant (Xiao et al., 2023): per input channel j of the consumers, s_j = max|x_j|^α /
/// max_i|W_ij|^(1−α) divides the producer and multiplies the consumers, so that the model computes the same
/// function with tamer activations. `channel_maxima` are those of the base model (Calibration); 0 ≤ alpha
/// ≤ 1. A channel without a signal, or without weights, has the scale 1. Returns what is to be said about
/// scales that are unusual (ScaleCheck).
std::vector<Warning> smooth(EditableModel& model, const PointMap<std::vector<float>>& channel_maxima,
                            Variant variant, double alpha);

/// Divides what an edge's producer makes, channel by channel, and multiplies its consumers' columns.
void apply_scales(EditableModel& model, int64_t layer, const model::ScaleEdge& edge,
                  const std::vector<float>& scales);

}  // namespace qeval::quant
