#include "model/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/parallel.h"

namespace qeval::model {
namespace {

float llama3(float frequency, const RopeScaling& scaling) {
  const double f = frequency;
  const double wavelength = 2 * std::numbers::pi / f;
  const double length = scaling.original_max_position_embeddings;
  if (wavelength > length / scaling.low_freq_factor) return static_cast<float>(f / scaling.factor);
  if (wavelength < length / scaling.high_freq_factor) return frequency;
  const double m =
      (length / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return static_cast<float>((1 - m) * f / scaling.factor + m * f);
}

/// YaRN's share of interpolation at pair i: 0 where a wavelength is short, 1 where it is long (Peng et al.
/// 2023, "by parts").
double yarn_ramp(const Rotary& rotary, size_t i) {
  const RopeScaling& s = rotary.scaling;
  const auto dim = static_cast<double>(rotary.dim);
  const auto pair_of = [&](double rotations) {
    return dim * std::log(s.original_max_position_embeddings / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rotary.theta));
  };
  double low = pair_of(s.beta_fast), high = pair_of(s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
}

float scaled(float frequency, const Rotary& rotary, size_t i, int64_t length) {
  const RopeScaling& scaling = rotary.scaling;
  switch (scaling.kind) {
    case RopeScaling::Kind::none:
    case RopeScaling::Kind::dynamic:  // in the base
      break;
    case RopeScaling::Kind::linear:
      return static_cast<float>(static_cast<double>(frequency) / scaling.factor);
    case RopeScaling::Kind::llama3:
      return llama3(frequency, scaling);
    case RopeScaling::Kind::yarn: {
      const double ramp = yarn_ramp(rotary, i), f = frequency;
      return static_cast<float>(f / scaling.factor * ramp + f * (1 - ramp));
    }
    case RopeScaling::Kind::longrope: {
      const auto& factors = rotary.length_class(length) != 0 ? scaling.long_factors : scaling.short_factors;
      return static_cast<float>(static_cast<double>(frequency) / factors[i]);
    }
  }
  return frequency;
}

/// The base, stretched by the length of the sequence (dynamic NTK).
double base(const Rotary& rotary, int64_t length) {
  const RopeScaling& s = rotary.scaling;
  if (s.kind != RopeScaling::Kind::dynamic || rotary.length_class(length) == 0) return rotary.theta;
  const auto d = static_cast<double>(rotary.dim);
  const double stretch =
      s.factor * static_cast<double>(length) / s.original_max_position_embeddings - (s.factor - 1);
  return rotary.theta * std::pow(stretch, d / (d - 2));
}

}  // namespace

std::vector<float> rotary_frequencies(const Rotary& rotary, int64_t length) {
  std::vector<float> frequencies(static_cast<size_t>(rotary.dim / 2));
  const double theta = base(rotary, length);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotary.dim);
    const float power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    frequencies[i] = scaled(1.0F / power, rotary, i, length);
    if (rotary.turning_pairs != 0 && static_cast<int64_t>(i) >= rotary.turning_pairs) frequencies[i] = 0;
  }
  return frequencies;
}

float position_factor(const RotateOp& op, int64_t position) {
  const double steps = std::floor(static_cast<double>(position) / op.position_original);
  return static_cast<float>(1 + op.position_beta * std::log1p(steps));
}

RotaryTable::RotaryTable(const Rotary& rotary, int64_t positions, int64_t length)
    : half_(rotary.dim / 2), positions_(positions), values_(static_cast<size_t>(positions * 2 * half_)) {
  const std::vector<float> frequencies = rotary_frequencies(rotary, length);
  const RopeScaling& scaling = rotary.scaling;
  const bool longer = scaling.long_attention_factor != 0 && rotary.length_class(length) != 0;
  const auto factor = static_cast<float>(longer ? scaling.long_attention_factor : scaling.attention_factor);
  parallel_ranges(positions, 64, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      float* row = values_.data() + p * 2 * half_;
      for (int64_t i = 0; i < half_; ++i) {
        const float angle = static_cast<float>(p) * frequencies[static_cast<size_t>(i)];
        row[i] = std::cos(angle) * factor;
        row[half_ + i] = std::sin(angle) * factor;
      }
    }
  });
}

}  // namespace qeval::model
