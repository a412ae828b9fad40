#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/peers.h"
#include "model/weights.h"
#include "quant/grid/qcfg.h"

namespace qeval::quant {

/// Calibration text: token ids, a sample each.
using Samples = std::vector<std::vector<int32_t>>;

/// How a static range follows from the values seen.
enum class RangeEstimator : uint8_t {
  minmax,      ///< the smallest and the largest: the paper's
  percentile,  ///< what leaves out a given share of the values at either end
  mse          ///< the range whose quantization has the smallest mean squared error
};
RangeEstimator parse_range_estimator(std::string_view name);
std::string_view name(RangeEstimator estimator);

struct CalibrationOptions {
  RangeEstimator estimator = RangeEstimator::minmax;
  /// For `percentile`: the share kept below the upper bound and above the lower one, in percent.
  double percentile = 99.99;
  /// Position 0 has ranges of its own, and no part in the others.
  bool first_token_apart = false;
  /// Where it is apart: the token that every sample begins with, of which nothing is measured (Prefix).
  std::optional<int32_t> prefix_token{};
};

/// What calibration measures. Ranges of every input, input2 and output point of the model, the sigmoid's
/// excepted (it is [0, 1] by nature); the largest magnitude per channel of the linears' inputs.
struct Calibration {
  ActRanges ranges;
  PointMap<std::vector<float>> channel_maxima;  ///< at {layer, linear, input}: [input features]
  /// Where the first token is apart, and no prefix: its configuration and ranges.
  std::optional<FirstToken> first{};
};

/// Whether percentile and mse change any range under this configuration (calibrate says which).
bool is_any_narrowed(const QuantConfig& qcfg, const model::ModelConfig& config);

/// Runs the float model over the samples and measures (docs/specification.md#points): ranges cover all that
/// an operation computes, the scores of future positions included. The same bits for any number of threads.
/// percentile and mse need a second pass and the points' bits, `qcfg`: they narrow the ranges of points that
/// are quantized to 10 bits or fewer; finer grids and points left alone keep min and max. Where position 0 is
/// apart, so are its massive activations, and so are, of points of 10 bits or fewer, rows that reach more
/// than two octaves further than 99 % of the rows; what norms read of the residual stream in more bits has a
/// range that ends there (docs/specification.md#the-first-token). A value that is not finite is an Error that
/// names the point. The ranges of position 0, where it is apart, are those of sequences of one token, of
/// every token of the samples: nothing that stands later can change them, and whatever token comes first
/// becomes the attention's sink. `progress`, where given, is called with samples done and in all. `peers`,
/// who must call this together with the same arguments, share the samples of the first pass; minima and
/// maxima are the same in any order.
Calibration calibrate(const model::Model& model, const Samples& samples, const QuantConfig& qcfg,
                      const CalibrationOptions& options,
                      const std::function<void(int64_t, int64_t)>& progress = {}, const Peers& peers = {});

}  // namespace qeval::quant
