#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/calibrate/calibration.h"
#include "quant/methods/editable_model.h"
#include "quant/methods/rotate.h"
#include "quant/methods/smoothquant.h"
#include "quant/methods/weight_rounding.h"

namespace qeval::quant {

/// How a model is quantized (docs/specification.md#methods).
enum class Method : uint8_t { rtn, gptq, awq, smoothquant, omniquant, lrl, mobilequant, rotate };
Method parse_method(std::string_view name);
std::string_view name(Method method);
inline constexpr std::string_view kMethodNames =
    "rtn, gptq, awq, smoothquant, omniquant, lrl, mobilequant, rotate";
/// Whether the method learns (learn/learn.h), which quantize() leaves to its caller.
bool is_learned(Method method);
/// Whether the method has a variant of smoothing to begin with: smoothquant and the learned ones.
bool has_variant(Method method);

/// Position 0, where whatever token stands becomes the attention's sink: ranges shared with the other
/// positions, ranges of its own, or constants for the one token that every sequence begins with
/// (docs/specification.md#the-first-token).
enum class FirstTokenMode : uint8_t { shared, ranges, prefix };
FirstTokenMode parse_first_token(std::string_view name);
std::string_view name(FirstTokenMode mode);
FirstTokenMode first_token_mode(const CalibrationOptions& options);
inline constexpr std::string_view kFirstTokenModes = "shared, ranges, prefix";

/// Throws Error, before anything is computed, where a method or the points of a scheme lack an operation of
/// the model: naming it.
void require_method(const model::ModelConfig& config, Method method, const Scheme& scheme);

struct QuantizeOptions {
  Method method = Method::rtn;
  Scheme scheme;
  Variant variant = Variant::modified;
  double alpha = 0.5;
  /// Learned methods: start from SmoothQuant.
  bool smooth = true;
  RotationOptions rotation;  ///< behind the smoothing, where there is one
  CalibrationOptions calibration;
  /// Of the linear maps' weights, and what their grids span, where that is not the method's own choice
  /// (weight_rounding).
  std::optional<Rounding> rounding;
  std::optional<WeightRange> weight_range;
  std::optional<ActRanges> act_ranges;  ///< instead of measured ones
  /// Points of higher precision: patterns over point names, or "auto:N" (mixed_precision.h).
  std::vector<std::string> keep_16bit;
};

/// How weights are rounded: as `rounding` says; without it to nearest, but by Method::gptq, and by
/// Method::rotate weights of fewer than 8 bits, by GPTQ. Grids span what `weight_range` says; without it
/// minmax, by GPTQ with activations' ranges of least squared error mse, of Method::awq output.
WeightRounding weight_rounding(const QuantizeOptions& options);

/// Whether the quantization begins with SmoothQuant's smoothing, so that variant and alpha decide the start.
bool smooths(const QuantizeOptions& options);

/// A quantized model: float weights, transformed where the method does so, and what rounds them.
struct QuantizedModel {
  model::Model base;                    ///< the source, its blocks' RMSNorm without eps
  std::optional<EditableModel> edited;  ///< where the method changes weights
  QuantConfig qcfg;
  ActRanges ranges;
  std::optional<FirstToken> first;  ///< where position 0 has grids of its own
  std::optional<Prefix> prefix;     ///< where it is a constant; `first` are the grids of that
  std::vector<Warning> warnings;    ///< of what the method did

  const model::Model& model() const { return edited ? edited->model() : base; }
};

/// The grids of position 0, as an arithmetic takes them.
std::optional<FirstToken> completed_first(const QuantizedModel& model);

/// The prefix and its grids, which follow from the model's points as they are.
void take_prefix(Prefix prefix, QuantizedModel& model);

/// Progress of the longer steps: what is being done, how much of it, how much in all.
using ProgressFunction = std::function<void(const std::string& step, int64_t done, int64_t total)>;

/// What calibration saw of one model on one set of samples, for several quantizations of it: min-max ranges
/// and channel maxima depend on neither method nor scheme. Filled as needed.
struct Observations {
  struct Smoothed {
    Variant variant;
    double alpha;
    ActRanges ranges;
  };
  std::optional<Calibration> base;
  std::vector<Smoothed> smoothed;
};

/// The last step of a quantization: the weights, whatever changed them, become codes where the options make
/// some (round_weights).
void round_weights(QuantizedModel& model, const Samples& samples, const QuantizeOptions& options,
                   const ProgressFunction& progress = {});

/// Refuses ranges or constants of position 0 (`--first-token`) where nothing is measured that they would be,
/// or what is measured leaves no other position. Before any work; quantize() asks again for the configuration
/// that it makes.
void require_apart(const QuantizeOptions& options, const QuantConfig& qcfg, const model::ModelConfig& config,
                   const Samples& samples);

/// Quantizes `model` with the samples as calibration text (none where nothing is measured: weights alone,
/// dynamic activations or given ranges; else an Error that names a point without a range); for a learned
/// method, what learning starts from, its weights not rounded yet. The result refers to the model's
/// checkpoint, not to `model`. `observations`, where given, must be of this model and these samples; the
/// result is the same with and without.
///
/// `peers`, who must call this together, share the samples where ranges are minima and maxima.
QuantizedModel quantize(const model::Model& model, const Samples& samples, const QuantizeOptions& options,
                        const ProgressFunction& progress = {}, Observations* observations = nullptr,
                        const Peers& peers = {});

}  // namespace qeval::quant
