#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/calibrate/calibration.h"

namespace qeval::quant {

/// Whether `pattern` (with * for any text and ? for one character) is `name`, or a tail of it that follows a
/// dot: "mlp.w2.input" and "*.w2.input" both match "model.layers.3.mlp.w2.input".
bool matches(std::string_view pattern, std::string_view name);

// Points of higher precision, by wishes as `--keep-16bit` takes them: a pattern over the names of points
// (point_name), which can be granted before anything is measured, or "auto:N". Only points that are quantized
// to fewer than 16 bits change; a wish that changes none is an Error.

/// The N of "auto:N", nothing for a pattern. An Error where N is no number from 1 on.
std::optional<int64_t> automatic_count(std::string_view wish);

/// Gives 16 bits to the points that the pattern names. Returns how many.
int64_t raise_named(std::string_view pattern, const model::ModelConfig& config, QuantConfig& qcfg);

/// Gives 16 bits to the `count` activation points whose quantization alone costs the most log-likelihood on
/// the samples (analysis.h), and returns them. `ranges` as complete_ranges makes them.
std::vector<Point> raise_most_sensitive(int64_t count, const model::Model& model, const Samples& samples,
                                        const ActRanges& ranges, QuantConfig& qcfg,
                                        const std::function<void(int64_t, int64_t)>& progress = {},
                                        const std::optional<FirstToken>& first = std::nullopt);

}  // namespace qeval::quant
