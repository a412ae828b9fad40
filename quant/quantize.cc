#include "quant/quantize.h"

#include <array>

#include "base/error.h"
#include "quant/mixed_precision.h"

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

QuantizedModel quantize(const model::Model& model, const Samples& samples, const QuantizeOptions& options,
                        const ProgressFunction& progress) {
  QuantizedModel result{model, std::nullopt, make_qcfg(model.config, options.scheme),
                        ActRanges(model.config.num_layers)};
  // The simulation's RMSNorm has no eps in the blocks, so neither has the model that is measured, nor the one
  // that is written.
  result.base.config.l2norm_as_rmsnorm = model.config.norm == model::NormKind::rms;
  const auto report = [&](const char* step) {
    return [&progress, step](int64_t done, int64_t total) {
      if (progress) progress(step, done, total);
    };
  };

  if (options.method == Method::smoothquant || (is_learned(options.method) && options.smooth)) {
    const Calibration base =
        calibrate(result.base, samples, result.qcfg, CalibrationOptions{}, report("channel maxima"));
    result.edited.emplace(result.base);
    smooth(*result.edited, base.channel_maxima, options.variant, options.alpha);
  }
  if (options.act_ranges) {
    result.ranges = *options.act_ranges;
    complete_ranges(result.qcfg, result.ranges, model.config, "--act-ranges");  // nothing may be missing
  } else if (samples.empty()) {
    complete_ranges(result.qcfg, result.ranges, model.config, "nothing, without calibration text");
  } else {
    result.ranges =
        calibrate(result.model(), samples, result.qcfg, options.calibration, report("ranges")).ranges;
  }
  for (const std::string& wish : options.keep_16bit) {
    keep_16bit(wish, result.model(), samples, result.ranges, result.qcfg, report("sensitivity"));
  }
  return result;
}

}  // namespace qeval::quant
