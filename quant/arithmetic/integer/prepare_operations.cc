#include <algorithm>
#include <cmath>
#include <numbers>
#include <tuple>

#include "base/error.h"
#include "quant/arithmetic/integer/prepare.h"

namespace qeval::quant {

StreamRead prepare_read(const StreamGrid& stream, const PointGrid& codes) {
  const StreamFormat format = stream.format();
  const double reach = std::max(std::abs(static_cast<double>(format.lo)), static_cast<double>(format.hi));
  const double factor = std::ldexp(stream.grid.scale(), kReadBits - stream.guard_bits) / codes.scale();
  return {.factor = make_rescale(factor, reach), .codes = codes.codes};
}

IntegerNorm prepare_norm(const model::NormOp& op, const model::NormWeights& weights, const QuantSpec& spec,
                         const OperationGrids& grids) {
  const int64_t n = op.group;
  const PointGrid& input = grids.rounded_in;
  IntegerNorm norm;
  norm.group = n;
  norm.own_weights = op.own_weights;
  norm.subtract_mean = op.kind == model::NormKind::layer;
  if (!grids.stream) {
    norm.source = NormSource::codes;
    norm.input_table = regrid(grids.in, input);
  } else if (grids.stream_is_own) {
    norm.stream = grids.stream->format();
    norm.input_table = regrid(grids.stream->grid, input);
  } else {
    norm.source = NormSource::other_stream;
    norm.read = prepare_read(*grids.stream, input);
  }
  norm.zero_point = input.codes.zero_point;
  // n · (2 · reach · 2^f)² below 2^60.
  const double reach = 2.0 * static_cast<double>(std::max<int64_t>(input.reach(), 1));
  const double bits = (60.0 - std::log2(static_cast<double>(n))) / 2 - std::log2(reach);
  if (bits < 0) {
    fail("{}.input: its range lies too far from 0 for its width: the sum of {} squares exceeds 64 bits",
         weights.name, n);
  }
  // Only the mean has fractions of a code.
  norm.extra_bits = norm.subtract_mean ? std::min(16, static_cast<int>(bits)) : 0;
  const double unit = input.scale() * std::ldexp(1.0, -norm.extra_bits);
  norm.eps =
      static_cast<int64_t>(std::min(0x1p60, std::nearbyint(static_cast<double>(n) * op.eps / (unit * unit))));
  const double root = std::sqrt(static_cast<double>(n));
  norm.root_n_bits = 60 - std::ilogb(root);
  norm.root_n = static_cast<uint64_t>(std::ldexp(root, norm.root_n_bits));

  const Range range = quant_kernels().range(weights.weight.data(), std::ssize(weights.weight));
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
  double bound = (std::ldexp(root, kUnitBits) + 1) * largest;
  double largest_bias = 0;
  for (const float b : weights.bias) {
    const double units = std::nearbyint(static_cast<double>(b) / scale);
    if (!(std::abs(units) < 0x1p60)) fail("tensor {}.bias: {} is outside what 64 bits hold", weights.name, b);
    norm.bias.push_back(static_cast<int64_t>(units));
    largest_bias = std::max(largest_bias, std::abs(units));
  }
  bound += largest_bias;
  norm.factor = make_rescale(scale / grids.made.scale(), bound);
  norm.output = grids.made.codes;
  norm.output_table = regrid(grids.made, grids.out);
  return norm;
}

StreamFormat StreamGrid::format() const {
  const CodeRange& codes = grid.codes;
  if (guard_bits == 0) {
    return {.guard_bits = 0,
            .codes = codes,
            .lo = codes.lo - codes.zero_point,
            .hi = codes.hi - codes.zero_point};
  }
  return {.guard_bits = guard_bits, .codes = codes, .lo = -kStreamLimit, .hi = kStreamLimit};
}

int32_t StreamGrid::code(float value) const {
  const StreamFormat f = format();
  const double d = std::nearbyint(std::ldexp(static_cast<double>(value) / grid.scale(), guard_bits));
  return static_cast<int32_t>(std::clamp(d, static_cast<double>(f.lo), static_cast<double>(f.hi)));
}

float StreamGrid::value(int32_t code) const {
  return static_cast<float>(std::ldexp(static_cast<double>(code), -guard_bits) * grid.scale());
}

IntegerAdd prepare_add(const StreamGrid& stream, const PointGrid& update, float factor,
                       const StreamGrid& next, const std::string& point) {
  const double added = update.scale() * static_cast<double>(factor);
  const double step = std::ldexp(stream.grid.scale(), -stream.guard_bits);
  // make_rescale() takes factors below 2^30: beyond, it would change the sum without a word.
  const double largest = std::max(step, added) / next.grid.scale();
  int32_t bits = kAddBits;
  while (bits > next.guard_bits && std::ldexp(largest, bits) >= 0x1p30) --bits;
  if (std::ldexp(largest, bits) >= 0x1p30) {
    fail(
        "{}: a step of {} is too coarse for a residual stream in steps of {}; integer arithmetic accepts "
        "more "
        "bits there, or a wider range of the next norm's input",
        point, std::max(step, added), next.grid.scale());
  }
  const double unit = next.grid.scale() * std::ldexp(1.0, -bits);
  const StreamFormat format = stream.format();
  const double reach = std::max(std::abs(static_cast<double>(format.lo)), static_cast<double>(format.hi));
  return {.update_zero_point = update.codes.zero_point,
          .bits = bits,
          .keep = make_rescale(step / unit, reach),
          .join = make_rescale(added / unit, static_cast<double>(update.reach())),
          .output = next.format()};
}

IntegerSum prepare_sum(const SumGrids& grids, float factor) {
  const double to = grids.to.scale() / grids.out.scale();
  const double in = grids.in.scale() * static_cast<double>(factor) / grids.out.scale();
  IntegerSum sum{.bits = kAddBits,
                 .to_zero_point = grids.to.codes.zero_point,
                 .in_zero_point = grids.in.codes.zero_point,
                 .to = {},
                 .in = {},
                 .output = grids.out.codes};
  while (sum.bits > 0 && std::ldexp(std::max(to, in), sum.bits) >= 0x1p30) --sum.bits;
  sum.to = make_rescale(std::ldexp(to, sum.bits), static_cast<double>(grids.to.reach()));
  sum.in = make_rescale(std::ldexp(in, sum.bits), static_cast<double>(grids.in.reach()));
  return sum;
}

IntegerRotary prepare_rotary(const PointGrid& input, const PointGrid& output, int32_t angle_bits) {
  const double factor = input.scale() / output.scale();
  const auto reach = static_cast<double>(input.reach());
  return {.zero_point = input.codes.zero_point,
          .rotated = make_rescale(std::ldexp(factor, -angle_bits), std::ldexp(reach, kAngleBits + 1)),
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

namespace {

double product_reach(const ProductGrids& product) {
  return static_cast<double>(product.gate.reach()) * static_cast<double>(product.up.reach());
}

}  // namespace

IntegerHadamard prepare_hadamard(int64_t block, const HadamardGrids& grids) {
  IntegerHadamard hadamard;
  hadamard.matrix = model::make_hadamard(block);
  hadamard.output = grids.out.codes;
  double reach = 0, step = 0;
  if (grids.product) {
    hadamard.source = RotationSource::products;
    reach = product_reach(*grids.product);
    step = grids.product->gate.scale() * grids.product->up.scale();
  } else {
    hadamard.zero_point = grids.in.codes.zero_point;
    reach = static_cast<double>(grids.in.reach());
    step = grids.in.scale();
  }
  const double bound = reach * static_cast<double>(block);
  if (bound >= 0x1p62) {
    fail(
        "{}: sums of {} numbers up to {} exceed 64 bits; integer arithmetic accepts fewer bits or a narrower "
        "range",
        point_name(grids.point), block, reach);
  }
  hadamard.wide = bound >= 0x1p31;
  const double root = std::sqrt(static_cast<double>(block));
  hadamard.factor = make_rescale(step / root / grids.out.scale(), bound);
  return hadamard;
}

ExpTable prepare_exp(double step) {
  ExpTable exp;
  const double octaves = step / std::numbers::ln2;
  // 2^−31 is nothing in units of 2^−kExpBits; 26 fractional bits at least, and y stays below 2^32.
  exp.limit = static_cast<uint32_t>(std::clamp(31 / octaves, 0.0, 65535.0));
  const double most = std::max(exp.limit * octaves, 1.0);
  exp.fraction_bits = std::min(27, 31 - std::ilogb(most) - 1);
  const double scaled = std::ldexp(octaves, exp.fraction_bits);
  if (exp.limit > 0) {
    exp.high = static_cast<uint32_t>(scaled);
    exp.low = static_cast<uint32_t>((scaled - exp.high) * 0x1p16);
  } else {
    // One code is more than 31 octaves.
    exp.limit = 1;
    exp.high = 31U << exp.fraction_bits;
  }
  for (size_t j = 0; j < exp.powers.size(); ++j) {
    const double power = std::exp2(kExpBits - static_cast<double>(j) / 8);
    exp.powers[j] = static_cast<uint32_t>(std::llround(power));
    exp.slopes[j] = static_cast<uint32_t>(std::llround(power * std::numbers::ln2 / 8 * 0x1p-12));
  }
  return exp;
}

namespace {

/// What scores are divided by on their way into the softmax: √head_dim in full, where the model's float32
/// says that.
double score_divisor(const model::AttentionOp& op) {
  const auto d = static_cast<double>(op.head_dim);
  if (op.scale == 1.0F / std::sqrt(static_cast<float>(op.head_dim))) return std::sqrt(d);
  return 1 / static_cast<double>(op.scale);
}

}  // namespace

IntegerAttention prepare_attention(const model::AttentionOp& op, int64_t keys, const AttentionGrids& grids,
                                   const AttentionGrids* first, const std::string& point) {
  const auto& [q, k, v, scores, capped, probabilities, mixed] = grids;
  IntegerAttention a;
  a.kv_heads = op.kv_heads;
  a.head_dim = op.head_dim;
  a.value_dim = op.value_dim;
  a.lends = op.kv_lent;
  a.borrows = op.kv_from != 0;
  a.narrow_q = q.codes.narrow();
  a.narrow_k = k.codes.narrow();
  a.narrow_v = v.codes.narrow();
  a.k_offset = a.narrow_k ? 128 : 0;
  a.v_offset = a.narrow_v ? 128 : 0;
  a.q_zero_point = q.codes.zero_point;
  a.k_zero_point = k.codes.zero_point - a.k_offset;
  a.v_zero_point = v.codes.zero_point - a.v_offset;
  const auto d = static_cast<double>(op.head_dim);
  a.score_factor = make_rescale(q.scale() * k.scale() / scores.scale(),
                                d * static_cast<double>(q.reach()) * static_cast<double>(k.reach()));
  a.score_codes = scores.codes;
  if (op.softcap == 0) {
    a.exp = prepare_exp(scores.scale() / score_divisor(op));
  } else {
    a.cap = make_table(scores, capped,
                       [&](float x) { return op.softcap * std::tanh(x * op.scale / op.softcap); });
    a.exp = prepare_exp(capped.scale());
  }
  const double inverse = 1 / probabilities.scale();
  a.inverse_bits = 61 - std::ilogb(inverse);
  a.inverse_step = static_cast<uint64_t>(std::ldexp(inverse, a.inverse_bits));
  a.probability_codes = probabilities.codes;
  // Probabilities add up to 1, but each may be rounded up by half a step, or moved to the code nearest to it
  // of a range that excludes it.
  const CodeRange& p = probabilities.codes;
  const double nearest = std::max({0, p.lo - p.zero_point, p.zero_point - p.hi});
  const double total = std::max(inverse, 1.0) + static_cast<double>(keys) * (0.5 + nearest);
  double reach = static_cast<double>(v.reach());
  if (first != nullptr) {
    for (const auto& [own, other, what] : {std::tuple{&first->k, &k, "keys"}, {&first->v, &v, "values"}}) {
      if (own->codes.narrow() == other->codes.narrow()) continue;
      fail(
          "{}: {} of position 0 have another width than the others'; integer arithmetic accepts both of up "
          "to "
          "8 bits, or both of more",
          point, what);
    }
    const double ratio = first->v.scale() / v.scale();
    const auto own_reach = static_cast<double>(first->v.reach());
    IntegerFirstKey& f = a.first.emplace();
    f.k_zero_point = first->k.codes.zero_point - a.k_offset;
    f.v_zero_point = first->v.codes.zero_point - a.v_offset;
    f.score_factor = make_rescale(q.scale() * first->k.scale() / scores.scale(),
                                  d * static_cast<double>(q.reach()) * static_cast<double>(first->k.reach()));
    f.value_factor = make_rescale(ratio, 65536 * own_reach);
    f.own_factor = make_rescale(first->v.scale() / first->mixed.scale(), own_reach);
    f.own_codes = first->mixed.codes;
    reach = std::max(reach, own_reach * ratio);
  }
  a.mix_factor = make_rescale(probabilities.scale() * v.scale() / mixed.scale(), total * reach);
  a.mix_codes = mixed.codes;
  return a;
}

CodeTable prepare_activation(model::Activation kind, const OperationGrids& grids,
                             const std::optional<PointGrid>& sigmoid,
                             const std::optional<model::XieluWeights>& xielu) {
  const PointGrid& input = grids.rounded_in;
  const auto table = [&](const auto& function) {
    return make_table(grids.in, grids.out,
                      [&](float x) -> float { return function(input.value(input.code(x))); });
  };
  switch (kind) {
    case model::Activation::silu:
      return table([&](float u) {
        const auto s = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(u))));
        return u * (sigmoid ? sigmoid->value(sigmoid->code(s)) : s);
      });
    case model::Activation::gelu_erf:
      return table([](double u) { return static_cast<float>(0.5 * u * (1 + std::erf(u / std::sqrt(2.0)))); });
    case model::Activation::gelu_tanh:
      return table([](double u) {
        const double inner = std::sqrt(2 / std::numbers::pi) * (u + 0.044715 * u * u * u);
        return static_cast<float>(0.5 * u * (1 + std::tanh(inner)));
      });
    case model::Activation::relu:
      return table([](float u) { return std::max(u, 0.0F); });
    case model::Activation::relu2:
      return table([](float u) { return std::max(u, 0.0F) * std::max(u, 0.0F); });
    case model::Activation::xielu:
      break;
  }
  const auto softplus = [](double a) { return std::max(a, 0.0) + std::log1p(std::exp(-std::abs(a))); };
  const double beta = xielu->beta, positive = softplus(xielu->alpha_p),
               negative = beta + softplus(xielu->alpha_n);
  return table([&](double u) {
    return static_cast<float>(u > 0
                                  ? positive * u * u + beta * u
                                  : negative * (std::expm1(std::min<double>(u, xielu->eps)) - u) + beta * u);
  });
}

}  // namespace qeval::quant
