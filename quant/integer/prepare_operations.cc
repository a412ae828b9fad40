#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/integer/prepare.h"

namespace qeval::quant {

IntegerNorm prepare_norm(const model::NormWeights& weights, const QuantSpec& spec, bool subtract_mean,
                         double eps, const PointGrid& residual, const PointGrid& input,
                         const PointGrid& output) {
  const auto n = static_cast<int64_t>(weights.weight.size());
  IntegerNorm norm;
  norm.subtract_mean = subtract_mean;
  norm.input_table = regrid(residual, input);
  norm.zero_point = input.codes.zero_point;
  // n · (2 · reach · 2^f)² below 2^60.
  const double reach = 2.0 * static_cast<double>(std::max<int64_t>(input.reach(), 1));
  const double bits = (60.0 - std::log2(static_cast<double>(n))) / 2 - std::log2(reach);
  if (bits < 0) {
    fail("{}.input: its range lies too far from 0 for its width: the sum of {} squares exceeds 64 bits",
         weights.name, n);
  }
  norm.extra_bits = std::min(16, static_cast<int>(bits));
  const double unit = input.scale() * std::ldexp(1.0, -norm.extra_bits);
  norm.eps =
      static_cast<int64_t>(std::min(0x1p60, std::nearbyint(static_cast<double>(n) * eps / (unit * unit))));
  const double root = std::sqrt(static_cast<double>(n));
  norm.root_n_bits = 61 - std::ilogb(root);
  norm.root_n = static_cast<uint64_t>(std::ldexp(root, norm.root_n_bits));

  const Range range = quant_kernels().range(weights.weight.data(), n);
  if (std::isnan(range.lo)) fail("tensor {}.weight: a weight is not finite: cannot quantize", weights.name);
  const Grid grid = make_grid(spec, range);
  double largest = 0;
  for (const float w : weights.weight) {
    const double q = std::nearbyint(static_cast<double>(w / grid.scale)) + grid.zero_point;
    const auto code =
        static_cast<int32_t>(std::clamp(q, static_cast<double>(grid.q_min), static_cast<double>(grid.q_max)));
    norm.weight.push_back(code - grid.zero_point);
    largest = std::max(largest, std::abs(static_cast<double>(norm.weight.back())));
  }
  const double scale = static_cast<double>(grid.scale) * std::ldexp(1.0, -kUnitBits);
  double bound = root * std::ldexp(largest, kUnitBits);
  double largest_bias = 0;
  for (const float b : weights.bias) {
    const double units = std::nearbyint(static_cast<double>(b) / scale);
    if (!(std::abs(units) < 0x1p60)) fail("tensor {}.bias: {} is outside what 64 bits hold", weights.name, b);
    norm.bias.push_back(static_cast<int64_t>(units));
    largest_bias = std::max(largest_bias, std::abs(units));
  }
  bound += largest_bias;
  norm.factor = make_rescale(scale / output.scale(), bound);
  norm.output = output.codes;
  return norm;
}

IntegerAdd prepare_add(const PointGrid& residual, const PointGrid& update, const PointGrid& next) {
  const double unit = next.scale() * std::ldexp(1.0, -kAddBits);
  return {.residual_zero_point = residual.codes.zero_point,
          .update_zero_point = update.codes.zero_point,
          .keep = make_rescale(residual.scale() / unit, static_cast<double>(residual.reach())),
          .join = make_rescale(update.scale() / unit, static_cast<double>(update.reach())),
          .output = next.codes};
}

IntegerRotary prepare_rotary(const PointGrid& input, const PointGrid& output) {
  const double factor = input.scale() / output.scale();
  const auto reach = static_cast<double>(input.reach());
  return {.zero_point = input.codes.zero_point,
          .rotated = make_rescale(std::ldexp(factor, -kAngleBits), std::ldexp(reach, kAngleBits + 1)),
          .passed = make_rescale(factor, reach),
          .output = output.codes};
}

IntegerProduct prepare_product(const PointGrid& gate, const PointGrid& up, const PointGrid& output) {
  return {.gate_zero_point = gate.codes.zero_point,
          .up_zero_point = up.codes.zero_point,
          .factor = make_rescale(gate.scale() * up.scale() / output.scale(),
                                 static_cast<double>(gate.reach()) * static_cast<double>(up.reach())),
          .output = output.codes};
}

IntegerAttention prepare_attention(int64_t head_dim, int64_t keys, const PointGrid& q, const PointGrid& k,
                                   const PointGrid& scores, const PointGrid& probabilities,
                                   const PointGrid& v, const PointGrid& mixed) {
  IntegerAttention a;
  a.narrow_q = q.codes.narrow();
  a.narrow_k = k.codes.narrow();
  a.narrow_v = v.codes.narrow();
  a.k_offset = a.narrow_k ? 128 : 0;
  a.v_offset = a.narrow_v ? 128 : 0;
  a.q_zero_point = q.codes.zero_point;
  a.k_zero_point = k.codes.zero_point - a.k_offset;
  a.v_zero_point = v.codes.zero_point - a.v_offset;
  const auto d = static_cast<double>(head_dim);
  a.score_factor = make_rescale(q.scale() * k.scale() / scores.scale(),
                                d * static_cast<double>(q.reach()) * static_cast<double>(k.reach()));
  if (a.narrow_q && a.narrow_k) a.fast_score = make_fast(std::vector<Rescale>(8, a.score_factor));
  a.score_codes = scores.codes;
  const double step = scores.scale() / std::sqrt(d);
  for (size_t i = 0; i < a.coarse.size(); ++i) {
    const auto index = static_cast<double>(i);
    a.coarse[i] = static_cast<uint32_t>(std::llround(std::ldexp(std::exp(-256 * index * step), kExpBits)));
    a.fine[i] = static_cast<uint32_t>(std::llround(std::ldexp(std::exp(-index * step), kExpBits)));
  }
  const double inverse = 1 / probabilities.scale();
  a.inverse_bits = 61 - std::ilogb(inverse);
  a.inverse_step = static_cast<uint64_t>(std::ldexp(inverse, a.inverse_bits));
  a.probability_codes = probabilities.codes;
  // Probabilities add up to 1, but each may be rounded up by half a step or raised to the smallest code.
  const double lowest = std::max(0, probabilities.codes.lo - probabilities.codes.zero_point);
  const double total = std::max(inverse, 1.0) + static_cast<double>(keys) * (0.5 + lowest);
  a.mix_factor =
      make_rescale(probabilities.scale() * v.scale() / mixed.scale(), total * static_cast<double>(v.reach()));
  a.mix_codes = mixed.codes;
  return a;
}

}  // namespace qeval::quant
