#include "model/rotary.h"

#include <cmath>
#include <numbers>

#include "base/parallel.h"

namespace qeval::model {
namespace {

float scaled(float frequency, const RopeScaling& scaling) {
  const double f = frequency;
  switch (scaling.kind) {
    case RopeScaling::Kind::none:
      return frequency;
    case RopeScaling::Kind::linear:
      return static_cast<float>(f / scaling.factor);
    case RopeScaling::Kind::llama3: {
      const double wavelength = 2 * std::numbers::pi / f;
      const double length = scaling.original_max_position_embeddings;
      if (wavelength > length / scaling.low_freq_factor) return static_cast<float>(f / scaling.factor);
      if (wavelength < length / scaling.high_freq_factor) return frequency;
      const double m = (length / wavelength - scaling.low_freq_factor) /
                       (scaling.high_freq_factor - scaling.low_freq_factor);
      return static_cast<float>((1 - m) * f / scaling.factor + m * f);
    }
  }
  return frequency;
}

}  // namespace

std::vector<float> rotary_frequencies(const ModelConfig& config) {
  std::vector<float> frequencies(static_cast<size_t>(config.rotary_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.rotary_dim);
    const float power = static_cast<float>(std::pow(config.rope_theta, static_cast<double>(exponent)));
    frequencies[i] = scaled(1.0F / power, config.rope_scaling);
  }
  return frequencies;
}

RotaryTable::RotaryTable(const ModelConfig& config, int64_t positions)
    : half_(config.rotary_dim / 2),
      positions_(positions),
      values_(static_cast<size_t>(positions * 2 * half_)) {
  const std::vector<float> frequencies = rotary_frequencies(config);
  parallel_ranges(positions, 64, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      float* row = values_.data() + p * 2 * half_;
      for (int64_t i = 0; i < half_; ++i) {
        const float angle = static_cast<float>(p) * frequencies[static_cast<size_t>(i)];
        row[i] = std::cos(angle);
        row[half_ + i] = std::sin(angle);
      }
    }
  });
}

}  // namespace qeval::model
