#include "quant/methods/quantize.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/setting.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/arithmetic/prefix.h"
#include "quant/grid/stored_points.h"
#include "quant/methods/awq.h"
#include "quant/methods/learn/learn.h"
#include "quant/methods/mixed_precision.h"

namespace qeval::quant {
namespace {

constexpr std::array<std::string_view, 8> kMethodWords{"rtn",       "gptq", "awq",         "smoothquant",
                                                       "omniquant", "lrl",  "mobilequant", "rotate"};

/// From these on, rounding to nearest loses what GPTQ would hardly give back.
constexpr int kBitsRoundedToNearest = 8;

}  // namespace

Method parse_method(std::string_view name) {
  for (size_t i = 0; i < kMethodWords.size(); ++i) {
    if (kMethodWords[i] == name) return static_cast<Method>(i);
  }
  fail("{}: unknown method; accepted: {}", printable(name), kMethodNames);
}

std::string_view name(Method method) {
  return kMethodWords[static_cast<size_t>(method)];
}

bool is_learned(Method method) {
  return method == Method::omniquant || method == Method::lrl || method == Method::mobilequant;
}

void require_method(const model::ModelConfig& config, Method method, const Scheme& scheme) {
  if (scheme.activation_bits <= 16) require_points(config);
  if (is_learned(method)) require_backward_passes(config);
  if (method == Method::rotate) require_rotatable(config);
  if (method == Method::awq) {
    require_operations(config, "AWQ",
                       [](const model::Operation& operation) { return !model::is_beyond_dense(operation); });
  }
}

FirstTokenMode parse_first_token(std::string_view name) {
  if (name == "shared") return FirstTokenMode::shared;
  if (name == "ranges") return FirstTokenMode::ranges;
  if (name == "prefix") return FirstTokenMode::prefix;
  fail("{} {}: accepted: {}", setting("first-token"), printable(name), kFirstTokenModes);
}

std::string_view name(FirstTokenMode mode) {
  switch (mode) {
    case FirstTokenMode::shared:
      return "shared";
    case FirstTokenMode::ranges:
      return "ranges";
    case FirstTokenMode::prefix:
      break;
  }
  return "prefix";
}

FirstTokenMode first_token_mode(const CalibrationOptions& options) {
  if (!options.first_token_apart) return FirstTokenMode::shared;
  return options.prefix_token ? FirstTokenMode::prefix : FirstTokenMode::ranges;
}

bool has_variant(Method method) {
  return method == Method::smoothquant || is_learned(method);
}

WeightRounding weight_rounding(const QuantizeOptions& options) {
  const bool by_gptq = options.method == Method::gptq || (options.method == Method::rotate &&
                                                          options.scheme.weight.bits < kBitsRoundedToNearest);
  WeightRounding result{options.rounding.value_or(by_gptq ? Rounding::gptq : Rounding::nearest)};
  if (options.weight_range) {
    result.range = *options.weight_range;
  } else if (options.method == Method::awq) {
    result.range = WeightRange::output;
  } else if (result.rounding == Rounding::gptq && options.calibration.estimator == RangeEstimator::mse) {
    result.range = WeightRange::mse;
  }
  return result;
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
  Calibration ranges(const QuantizedModel& model) {
    if (is_known() && options_.calibration.estimator == RangeEstimator::minmax) return {extremes(model), {}};
    return calibrate(model.model(), samples_, model.qcfg, options_.calibration, report("ranges"), peers_);
  }

  /// Min-max ranges of the model as it is now.
  ActRanges extremes(const QuantizedModel& model) {
    if (!is_known()) {
      CalibrationOptions options = options_.calibration;
      options.estimator = RangeEstimator::minmax;
      return calibrate(model.model(), samples_, model.qcfg, options, report("ranges"), peers_).ranges;
    }
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
  /// Whether what other quantizations have seen is what this one would.
  bool is_known() const {
    return !options_.rotation.any() && !options_.calibration.first_token_apart &&
           options_.method != Method::awq;
  }

  const Samples& samples_;
  const QuantizeOptions& options_;
  const ProgressFunction& progress_;
  Observations& known_;
  const Peers& peers_;
};

/// Stored codes and ranges stay what they are.
void require_stored_scheme(const QuantizeOptions& options) {
  const std::string what = fmt::format("{} {}", setting("scheme"), kStoredScheme);
  if (options.method != Method::rtn || options.rotation.any()) {
    fail("{}: method {}{} changes weights; accepted: {}", what, name(options.method),
         options.rotation.any() ? " with a rotation" : "", name(Method::rtn));
  }
  if (weight_rounding(options).makes_codes())
    fail("{}: {} and {} make new codes; accepted: those that are stored", what, setting("rounding"),
         setting("weight-range"));
  if (options.calibration.first_token_apart)
    fail("{}: {} {}: the ranges that are stored are of every position; accepted: {}", what,
         setting("first-token"), name(first_token_mode(options.calibration)), name(FirstTokenMode::shared));
  if (options.act_ranges) fail("{}: not used with {}", what, setting("act-ranges"));
}

/// The most sensitive points to 16 bits, on ranges that nothing was cut off: they were found on narrowed
/// ones.
void raise(QuantizedModel& model, int64_t count, const Samples& samples, const QuantizeOptions& options,
           Measurer& measurer) {
  const ActRanges found = complete_ranges(model.qcfg, model.ranges, model.model().config, "the ranges");
  const std::vector<Point> raised =
      raise_most_sensitive(count, model.model(), samples, found, model.qcfg, measurer.report("sensitivity"),
                           completed_first(model));
  if (options.act_ranges || options.calibration.estimator == RangeEstimator::minmax) return;
  const ActRanges extremes = measurer.extremes(model);
  for (const Point& point : raised) {
    if (extremes[point]) model.ranges[point] = extremes[point];
  }
}

}  // namespace

void require_apart(const QuantizeOptions& options, const QuantConfig& qcfg, const model::ModelConfig& config,
                   const Samples& samples) {
  if (!options.calibration.first_token_apart) return;
  const std::string what =
      fmt::format("{} {}", setting("first-token"), name(first_token_mode(options.calibration)));
  if (options.act_ranges) fail("{}: not used with {}, which holds the ranges", what, setting("act-ranges"));
  if (samples.empty()) fail("{}: needs calibration text to measure them on", what);
  const bool any =
      std::ranges::any_of(all_points(config), [&](const Point& point) { return needs_range(qcfg, point); });
  if (!any) fail("{}: no activation has a static range here; accepted: shared", what);
  if (std::ranges::all_of(samples, [](const auto& sample) { return sample.size() < 2; }))
    fail("{}: samples of one token have no other positions to measure; accepted: longer ones", what);
  const std::optional<int32_t> token = options.calibration.prefix_token;
  if (token) require_prefix(config);
  for (size_t i = 0; token && i < samples.size(); ++i) {
    if (samples[i].front() == *token) continue;
    fail(
        "{}: sample {} of the calibration begins with token {}; accepted: {}, with which every sequence "
        "begins",
        what, i + 1, samples[i].front(), *token);
  }
}

QuantizedModel quantize(const model::Model& model, const Samples& samples, const QuantizeOptions& options,
                        const ProgressFunction& progress, Observations* observations, const Peers& peers) {
  QuantizedModel result{model,
                        std::nullopt,
                        make_qcfg(model.config, options.scheme),
                        ActRanges(model.config.num_layers),
                        std::nullopt,
                        std::nullopt,
                        {}};
  if (options.scheme.stored) require_stored_scheme(options);
  // The simulation's RMSNorm has no eps in the blocks, so neither has the model that is measured, nor the one
  // that is written.
  result.base.config.l2norm_as_rmsnorm = model.config.norm == model::NormKind::rms;
  Observations own;
  Measurer measurer(samples, options, progress, observations != nullptr ? *observations : own, peers);
  // Codes of an earlier quantization are weights like any other to this one, which rounds them anew.
  const bool from_codes =
      !options.scheme.stored && std::ranges::any_of(result.base.layers, [](const model::LayerWeights& layer) {
        bool coded = false;
        layer.visit_linears([&](Module, const model::LinearWeights& linear) {
          coded = coded || linear.weight.stored.coded() != nullptr;
        });
        return coded;
      });
  if (from_codes) result.edited.emplace(result.base);
  if (smooths(options)) {
    const Calibration& base = measurer.base(result);
    if (!result.edited) result.edited.emplace(result.base);
    result.warnings = smooth(*result.edited, base.channel_maxima, options.variant, options.alpha);
  }
  if (options.rotation.any()) {
    if (!result.edited) result.edited.emplace(result.base);
    for (const std::string& sentence : rotate(*result.edited, options.rotation).left_out)
      result.warnings.push_back({.what = sentence, .places = {}});
    model::ModelConfig& config = result.edited->config();
    config.l2norm_as_rmsnorm = config.norm == model::NormKind::rms;
  }
  const model::ModelConfig& config = result.model().config;
  std::vector<int64_t> most_sensitive;  // how many points, of each such wish
  std::optional<StoredPoints> stored;
  if (options.scheme.stored) {
    stored = stored_points(result.base, options.scheme);
    if (!stored->rounded.empty()) {
      result.warnings.push_back(
          {"weights of which the checkpoint stores no codes, rounded to 8 bits per channel",
           stored->rounded});
    }
  }
  result.qcfg = stored ? stored->qcfg : make_qcfg(config, options.scheme);
  for (const std::string& wish : options.keep_16bit) {
    if (const auto count = automatic_count(wish)) {
      most_sensitive.push_back(*count);
    } else {
      raise_named(wish, config, result.qcfg);
    }
  }
  require_apart(options, result.qcfg, config, samples);
  if (options.method == Method::awq) {
    if (!result.edited) result.edited.emplace(result.base);
    for (Warning& warning :
         scale_by_activations(*result.edited, result.qcfg, samples, measurer.report("AWQ scales")))
      result.warnings.push_back(std::move(warning));
  }
  if (options.act_ranges) {
    result.ranges = *options.act_ranges;
    complete_ranges(result.qcfg, result.ranges, config, setting("act-ranges"));  // nothing may be missing
  } else if (samples.empty()) {
    complete_ranges(result.qcfg, result.ranges, config, "nothing, without calibration text");
  } else {
    Calibration measured = measurer.ranges(result);
    result.ranges = std::move(measured.ranges);
    result.first = std::move(measured.first);
  }
  for (const Point& point : all_points(config)) {
    if (stored && stored->ranges[point]) result.ranges[point] = stored->ranges[point];
  }
  if (options.calibration.prefix_token)
    take_prefix(make_prefix(result.model(), *options.calibration.prefix_token), result);
  for (const int64_t count : most_sensitive) raise(result, count, samples, options, measurer);
  if (result.prefix) take_prefix(std::move(*result.prefix), result);  // raised points have more bits
  if (!is_learned(options.method)) round_weights(result, samples, options, progress);
  return result;
}

void take_prefix(Prefix prefix, QuantizedModel& model) {
  model.first = prefix_grids(prefix, model.qcfg, model.model().config);
  model.prefix = std::move(prefix);
}

std::optional<FirstToken> completed_first(const QuantizedModel& model) {
  if (!model.first) return std::nullopt;
  return FirstToken{model.first->qcfg, complete_ranges(model.first->qcfg, model.first->ranges,
                                                       model.model().config, "the ranges of position 0")};
}

void round_weights(QuantizedModel& model, const Samples& samples, const QuantizeOptions& options,
                   const ProgressFunction& progress) {
  WeightRounding rounding = weight_rounding(options);
  if (!rounding.makes_codes()) return;
  if (!has_codes(model.qcfg, model.base.config)) {
    fail("{} {}, {} {}: makes codes of weights of 8 bits or fewer, of which there are none; accepted: {}, {}",
         setting("rounding"), name(rounding.rounding), setting("weight-range"), name(rounding.range),
         name(Rounding::nearest), name(WeightRange::minmax));
  }
  if (!model.edited) model.edited.emplace(model.base);
  // A prefix is nothing that a weight computes.
  rounding.skip_first = options.calibration.prefix_token.has_value();
  round_weights(*model.edited, model.qcfg, samples, rounding, [&](int64_t done, int64_t total) {
    if (progress) progress(rounding.rounding == Rounding::gptq ? "GPTQ" : "weights\' grids", done, total);
  });
}

}  // namespace qeval::quant
