#include "quant/methods/quantize.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/setting.h"
#include "quant/methods/mixed_precision.h"

namespace qeval::quant {
namespace {

constexpr std::array<std::string_view, 5> kNames{"rtn", "smoothquant", "omniquant", "lrl", "mobilequant"};

}  // namespace

Method parse_method(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Method>(i);
  }
  fail("{}: unknown method; accepted: {}", printable(name), kMethodNames);
}

std::string_view name(Method method) {
  return kNames[static_cast<size_t>(method)];
}

bool is_learned(Method method) {
  return method != Method::rtn && method != Method::smoothquant;
}

bool smooths(const QuantizeOptions& options) {
  return options.method == Method::smoothquant || (is_learned(options.method) && options.smooth);
}

namespace {

/// One quantization's measurements, taken from earlier ones where there are any.
class Measurer {
 public:
  Measurer(const Samples& samples, const QuantizeOptions& options, const ProgressFunction& progress,
           Observations& known, const Peers& peers)
      : samples_(samples), options_(options), progress_(progress), known_(known), peers_(peers) {}

  /// Min-max ranges and channel maxima of the source.
  const Calibration& base(const QuantizedModel& model) {
    if (!known_.base)
      known_.base =
          calibrate(model.base, samples_, model.qcfg, CalibrationOptions{}, report("channel maxima"), peers_);
    return *known_.base;
  }

  /// The ranges as the options ask for them.
  ActRanges ranges(const QuantizedModel& model) {
    if (options_.calibration.estimator == RangeEstimator::minmax) return extremes(model);
    return calibrate(model.model(), samples_, model.qcfg, options_.calibration, report("ranges"), peers_)
        .ranges;
  }

  /// Min-max ranges of the model as it is now.
  ActRanges extremes(const QuantizedModel& model) {
    if (!smooths(options_)) return base(model).ranges;
    for (const Observations::Smoothed& seen : known_.smoothed) {
      if (seen.variant == options_.variant && seen.alpha == options_.alpha) return seen.ranges;
    }
    ActRanges ranges =
        calibrate(model.model(), samples_, model.qcfg, CalibrationOptions{}, report("ranges"), peers_).ranges;
    known_.smoothed.push_back({options_.variant, options_.alpha, ranges});
    return ranges;
  }

  std::function<void(int64_t, int64_t)> report(const char* step) const {
    return [this, step](int64_t done, int64_t total) {
      if (progress_) progress_(step, done, total);
    };
  }

 private:
  const Samples& samples_;
  const QuantizeOptions& options_;
  const ProgressFunction& progress_;
  Observations& known_;
  const Peers& peers_;
};

/// The most sensitive points to 16 bits, on ranges that nothing was cut off: they were found on narrowed
/// ones.
void raise(QuantizedModel& model, int64_t count, const Samples& samples, const QuantizeOptions& options,
           Measurer& measurer) {
  const ActRanges found = complete_ranges(model.qcfg, model.ranges, model.base.config, "the ranges");
  const std::vector<Point> raised =
      raise_most_sensitive(count, model.model(), samples, found, model.qcfg, measurer.report("sensitivity"));
  if (options.act_ranges || options.calibration.estimator == RangeEstimator::minmax) return;
  const ActRanges extremes = measurer.extremes(model);
  for (const Point& point : raised) {
    if (extremes[point]) model.ranges[point] = extremes[point];
  }
}

}  // namespace

QuantizedModel quantize(const model::Model& model, const Samples& samples, const QuantizeOptions& options,
                        const ProgressFunction& progress, Observations* observations, const Peers& peers) {
  QuantizedModel result{
      model, std::nullopt, make_qcfg(model.config, options.scheme), ActRanges(model.config.num_layers), {}};
  std::vector<int64_t> most_sensitive;  // how many points, of each such wish
  for (const std::string& wish : options.keep_16bit) {
    if (const auto count = automatic_count(wish)) {
      most_sensitive.push_back(*count);
    } else {
      raise_named(wish, model.config, result.qcfg);
    }
  }
  // The simulation's RMSNorm has no eps in the blocks, so neither has the model that is measured, nor the one
  // that is written.
  result.base.config.l2norm_as_rmsnorm = model.config.norm == model::NormKind::rms;
  Observations own;
  Measurer measurer(samples, options, progress, observations != nullptr ? *observations : own, peers);
  // Codes of an earlier quantization are weights like any other to this one, which rounds them anew.
  const bool from_codes = std::ranges::any_of(result.base.layers, [](const model::LayerWeights& layer) {
    return std::ranges::any_of(
        layer.linears, [](const auto& linear) { return linear.second.weight.stored.coded() != nullptr; });
  });
  if (from_codes) result.edited.emplace(result.base);
  if (smooths(options)) {
    const Calibration& base = measurer.base(result);
    if (!result.edited) result.edited.emplace(result.base);
    result.warnings = smooth(*result.edited, base.channel_maxima, options.variant, options.alpha);
  }
  if (options.act_ranges) {
    result.ranges = *options.act_ranges;
    complete_ranges(result.qcfg, result.ranges, model.config,
                    setting("act-ranges"));  // nothing may be missing
  } else if (samples.empty()) {
    complete_ranges(result.qcfg, result.ranges, model.config, "nothing, without calibration text");
  } else {
    result.ranges = measurer.ranges(result);
  }
  for (const int64_t count : most_sensitive) raise(result, count, samples, options, measurer);
  return result;
}

}  // namespace qeval::quant
