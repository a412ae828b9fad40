#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/arithmetic.h"
#include "quant/calibrate/calibration.h"

namespace qeval::quant {

/// What one point's rounding does to the tensor it rounds.
struct PointError {
  Point point;
  QuantSpec spec;
  /// 10·log10(Σ x² / Σ (x − quantized x)²), decibels: 6 more per bit. Infinite where nothing is lost.
  double signal_to_noise = 0;
  /// Share of the elements outside the range, which clamping moves.
  double clipped = 0;
};

/// The error of every quantized point, worst first: weights as they are, activations of the float model on
/// the samples, without their first tokens where those are apart. `ranges` as complete_ranges makes them.
std::vector<PointError> quantization_errors(const model::Model& model, const Samples& samples,
                                            const QuantConfig& qcfg, const ActRanges& ranges,
                                            const std::function<void(int64_t, int64_t)>& progress = {},
                                            bool first_token_apart = false);

/// What one point's rounding does to the model's answers.
struct PointSensitivity {
  Point point;
  QuantSpec spec;
  /// Increase of the mean negative log-likelihood per token of the samples (nats) when this point alone is
  /// quantized.
  double loss = 0;
};

/// The sensitivities of `points`, worst first (all quantized points of `qcfg`: quantized_points). One run
/// over the samples each. `ranges` as complete_ranges makes them, and those of `first`, where position 0 has
/// its own. The same bits for any number of threads.
std::vector<PointSensitivity> sensitivity(const model::Model& model, const Samples& samples,
                                          const QuantConfig& qcfg, const ActRanges& ranges,
                                          std::span<const Point> points,
                                          const std::function<void(int64_t, int64_t)>& progress = {},
                                          const std::optional<FirstToken>& first = std::nullopt);

std::vector<Point> quantized_points(const QuantConfig& qcfg, const model::ModelConfig& config);

/// Mean negative log-likelihood per token of the samples, each token given those before it in its sample.
double mean_negative_log_likelihood(const model::Model& model, const model::Arithmetic& arithmetic,
                                    const Samples& samples);

}  // namespace qeval::quant
