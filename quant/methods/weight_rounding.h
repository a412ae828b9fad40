#pragma once

#include <functional>
#include <string_view>

#include "quant/calibrate/calibration.h"
#include "quant/grid/quantized_matrix.h"
#include "quant/methods/editable_model.h"

namespace qeval::quant {

/// How a weight becomes the code of one of its grid's values.
enum class Rounding : uint8_t {
  nearest,
  gptq  ///< so that what the linear map makes of calibration text changes least (gptq.h)
};
Rounding parse_rounding(std::string_view name);
std::string_view name(Rounding rounding);
inline constexpr std::string_view kRoundingNames = "nearest, gptq";

/// Rounding and grids of the linear maps' weights.
struct WeightRounding {
  Rounding rounding = Rounding::nearest;
  WeightRange range = WeightRange::minmax;
  bool skip_first = false;  ///< leave the inputs at position 0 of each sample out of account

  /// Whether codes are made here and kept; else they are what the float weights round to, whoever does it.
  bool needs_samples() const { return rounding == Rounding::gptq || range == WeightRange::output; }
  bool makes_codes() const { return rounding != Rounding::nearest || range != WeightRange::minmax; }
};

/// Whether any of a model's linear maps has weights that round_weights() makes codes of: 8 bits or fewer.
bool has_codes(const QuantConfig& qcfg, const model::ModelConfig& config);

/// Replaces the weights of the blocks' linear maps that `qcfg` gives 8 bits or fewer by codes, as `rounding`
/// says; nothing where it makes none. Weights of more bits keep their floats, whose rounding to nearest loses
/// nothing. GPTQ and the range `output` take the inputs of each map as the float model `model` has them on
/// the samples, of which there must be some. Queries and keys, whose errors meet in a product, keep min-max
/// under `output`, as in AWQ. `progress`: blocks done and in all.
void round_weights(EditableModel& model, const QuantConfig& qcfg, const Samples& samples,
                   const WeightRounding& rounding, const std::function<void(int64_t, int64_t)>& progress);

}  // namespace qeval::quant
