#include "quant/arithmetic/analysis.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "model/decoder.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/calibrate/observer.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {
namespace {

/// Sums over the elements of one point.
struct ErrorSums {
  double signal = 0, noise = 0;
  int64_t clipped = 0, count = 0;

  void add(const float* x, const float* rounded, const Range& range, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const double value = x[i];
      const double difference = value - static_cast<double>(rounded[i]);
      signal += value * value;
      noise += difference * difference;
      clipped += x[i] < range.lo || x[i] > range.hi ? 1 : 0;
    }
    count += n;
  }
  void add(const ErrorSums& other) {
    signal += other.signal;
    noise += other.noise;
    clipped += other.clipped;
    count += other.count;
  }
};

PointError summarize(const Point& point, const QuantSpec& spec, const ErrorSums& sums) {
  PointError error{point, spec, std::numeric_limits<double>::infinity(), 0};
  if (sums.noise > 0) error.signal_to_noise = 10.0 * std::log10(sums.signal / sums.noise);
  if (sums.count > 0) error.clipped = static_cast<double>(sums.clipped) / static_cast<double>(sums.count);
  return error;
}

class ErrorObserver : public PointObserver {
 public:
  ErrorObserver(const model::ModelConfig& config, const QuantConfig& qcfg, const ActRanges& ranges)
      : quantizers_(config.num_layers), readers_(config.num_layers), sums_(config.num_layers) {
    for (const Point& point : all_points(config)) {
      if (point.slot == Slot::weight || !qcfg[point].enabled()) continue;
      quantizers_[point].spec = qcfg[point];
      if (needs_range(qcfg, point)) quantizers_[point].grid = make_grid(qcfg[point], ranges[point].value());
      readers_[made_at(config, point)].push_back(point);
    }
  }

  void observe(const Point& point, const float* x, int64_t rows, int64_t cols, int64_t stride) override {
    std::vector<float> rounded(static_cast<size_t>(cols));
    for (const Point& reader : readers_[point]) {
      const ActivationQuantizer& quantizer = quantizers_[reader];
      const Range range = quantizer.spec.dynamic ? Range{-std::numeric_limits<float>::infinity(),
                                                         std::numeric_limits<float>::infinity()}
                                                 : representable(quantizer.grid);
      ErrorSums sums;
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = x + r * stride;
        std::memcpy(rounded.data(), row, static_cast<size_t>(cols) * sizeof(float));
        quantizer(rounded.data(), cols);
        sums.add(row, rounded.data(), range, cols);
      }
      const std::lock_guard lock(locks_[reader]);
      sums_[reader].add(sums);
    }
  }

  const ErrorSums& sums(const Point& point) const { return sums_[point]; }

 private:
  PointMap<ActivationQuantizer> quantizers_;
  PointMap<std::vector<Point>> readers_;
  PointMap<ErrorSums> sums_;
  PointLocks locks_;
};

void add_weight_error(const model::Matrix& matrix, const QuantSpec& spec, ErrorSums& sums) {
  const QuantizedMatrix quantized = quantized_weight(matrix, spec);
  const model::WeightView decoded = view(quantized);
  const Range whole{-std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()};
  std::vector<float> stored(static_cast<size_t>(matrix.cols)), rounded(stored.size());
  for (int64_t r = 0; r < matrix.rows; ++r) {
    matrix.decode_rows(r, 1, stored.data());
    decoded.decode(decoded.context, {r, 1, 0, matrix.cols, rounded.data(), matrix.cols});
    sums.add(stored.data(), rounded.data(), whole, matrix.cols);
  }
}

ErrorSums weight_error(const model::Model& model, const Point& point, const QuantSpec& spec) {
  ErrorSums sums;
  if (point.module == Module::head) {
    add_weight_error(model.head.weight, spec, sums);
    return sums;
  }
  if (!is_norm(point.module)) {
    for (const auto* linear : model.layers[static_cast<size_t>(point.layer)].all(point.module)) {
      add_weight_error(linear->weight, spec, sums);
    }
    return sums;
  }
  const model::NormWeights& norm = model.norm(point.layer, point.module);
  model::Matrix row;  // a norm's weight as a matrix of one row
  row.name = norm.name;
  row.rows = 1;
  row.cols = std::ssize(norm.weight);
  row.stored = model::StoredWeight(norm.weight.data(), row.cols);
  add_weight_error(row, spec, sums);
  return sums;
}

}  // namespace

std::vector<Point> quantized_points(const QuantConfig& qcfg, const model::ModelConfig& config) {
  std::vector<Point> points = all_points(config);
  std::erase_if(points, [&](const Point& point) { return !qcfg[point].enabled(); });
  return points;
}

std::vector<PointError> quantization_errors(const model::Model& model, const Samples& samples,
                                            const QuantConfig& qcfg, const ActRanges& ranges,
                                            const std::function<void(int64_t, int64_t)>& progress,
                                            bool first_token_apart) {
  ErrorObserver observer(model.config, qcfg, ranges);
  size_t longest = 0;
  for (const auto& sample : samples) longest = std::max(longest, sample.size());
  const ObservedArithmetic arithmetic(model, static_cast<int64_t>(longest), observer, first_token_apart);
  for (size_t i = 0; i < samples.size(); ++i) {
    run_sample(model, arithmetic, samples[i]);
    if (progress) progress(static_cast<int64_t>(i) + 1, std::ssize(samples));
  }
  std::vector<PointError> errors;
  for (const Point& point : quantized_points(qcfg, model.config)) {
    errors.push_back(summarize(
        point, qcfg[point],
        point.slot == Slot::weight ? weight_error(model, point, qcfg[point]) : observer.sums(point)));
  }
  std::stable_sort(errors.begin(), errors.end(), [](const PointError& a, const PointError& b) {
    return a.signal_to_noise < b.signal_to_noise;
  });
  return errors;
}

double mean_negative_log_likelihood(const model::Model& model, const model::Arithmetic& arithmetic,
                                    const Samples& samples) {
  double sum = 0;
  int64_t count = 0;
  for (const auto& sample : samples) {
    for (const model::TokenAnswer& answer : run_sample(model, arithmetic, sample)) {
      sum -= answer.log_probability;
      ++count;
    }
  }
  return count == 0 ? 0.0 : sum / static_cast<double>(count);
}

std::vector<PointSensitivity> sensitivity(const model::Model& model, const Samples& samples,
                                          const QuantConfig& qcfg, const ActRanges& ranges,
                                          std::span<const Point> points,
                                          const std::function<void(int64_t, int64_t)>& progress,
                                          const std::optional<FirstToken>& first) {
  size_t longest = 0;
  for (const auto& sample : samples) longest = std::max(longest, sample.size());
  if (longest < 2) fail("sensitivity: no sample has two tokens, so there is nothing to predict");
  const QuantConfig nothing(model.config.num_layers);
  const auto loss_with = [&](const QuantConfig& only) {
    std::optional<FirstToken> only_first = first;
    for (const Point& point : all_points(model.config)) {
      if (only_first && !only[point].enabled()) only_first->qcfg[point] = {};
    }
    const FakeArithmetic arithmetic(model, only, ranges, static_cast<int64_t>(longest), only_first);
    return mean_negative_log_likelihood(model, arithmetic, samples);
  };
  const double baseline = loss_with(nothing);
  std::vector<PointSensitivity> result;
  for (const Point& point : points) {
    QuantConfig only = nothing;
    only[point] = qcfg[point];
    result.push_back({point, qcfg[point], loss_with(only) - baseline});
    if (progress) progress(std::ssize(result), std::ssize(points));
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const PointSensitivity& a, const PointSensitivity& b) { return a.loss > b.loss; });
  return result;
}

}  // namespace qeval::quant
