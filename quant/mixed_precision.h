#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "quant/calibration.h"

namespace qeval::quant {

/// Whether `pattern` (with * for any text and ? for one character) is `name`, or a tail of it that follows a
/// dot: "mlp.w2.input" and "*.w2.input" both match "model.layers.3.mlp.w2.input".
bool matches(std::string_view pattern, std::string_view name);

/// Gives points 16 bits in `qcfg`, by a wish as `--keep-16bit` takes it: a pattern over the names of points
/// (point_name), or "auto:N", the N activation points whose quantization alone costs the most log-likelihood
/// on the samples (analysis.h), whose ranges are as complete_ranges makes them. Only points that are
/// quantized to fewer bits change. Returns how many did; none is an Error, as is a malformed wish.
int64_t keep_16bit(std::string_view wish, const model::Model& model, const Samples& samples,
                   const ActRanges& ranges, QuantConfig& qcfg,
                   const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace qeval::quant
