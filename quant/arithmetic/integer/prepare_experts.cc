// Mixtures of experts: from floating point to what integers choose and weigh them by.

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/arithmetic/integer/prepare.h"

namespace qeval::quant {
namespace {

/// exp(−δ · step) for δ = 0 … `reach`.
PowerTable make_powers(double step, int64_t reach) {
  const auto power = [&](int64_t steps) {
    return static_cast<uint32_t>(
        std::llround(std::ldexp(std::exp(-static_cast<double>(steps) * step), kShareBits)));
  };
  PowerTable table;
  for (int64_t i = 0; i < int64_t{1} << kFineBits; ++i) table.fine.push_back(power(i));
  for (int64_t i = 0; i <= reach >> kFineBits; ++i) {
    table.coarse.push_back(power(i << kFineBits));
    if (table.coarse.back() == 0) break;
  }
  return table;
}

/// Of logits whose differences and distances from 0 are looked up.
PowerTable make_powers(const PointGrid& logits) {
  return make_powers(logits.scale(), std::max<int64_t>(logits.reach(), logits.codes.hi - logits.codes.lo));
}

/// make_rescale() of any sign.
Rescale signed_rescale(double factor, double bound) {
  if (factor == 0) return {};
  Rescale result = make_rescale(std::abs(factor), bound);
  if (factor < 0) result.multiplier = -result.multiplier;
  return result;
}

int64_t to_share(double x) {
  return std::llround(std::ldexp(x, kShareBits));
}

}  // namespace

IntegerRouter prepare_router(const model::RouteOp& op, const PointGrid& logits, const PointGrid& weights,
                             const std::vector<float>* correction, const std::vector<float>* scales,
                             const std::string& point) {
  constexpr double kMost = 0x1p20;
  const auto require = [&](double x, std::string_view what) {
    if (std::abs(x) < kMost) return x;
    fail("{}: {} {}; integer arithmetic accepts less than 2^20 either way", point, what, x);
  };
  IntegerRouter router{.scores = op.scores,
                       .experts = op.experts,
                       .used = op.used,
                       .normalize = op.normalize,
                       .groups = op.groups,
                       .used_groups = op.used_groups,
                       .zero_point = logits.codes.zero_point,
                       .power = make_powers(logits),
                       .codes = weights.codes};
  router.least_sum = static_cast<uint64_t>(to_share(std::max(0.0, require(op.least_sum, "a least sum of"))));
  router.added_sum = static_cast<uint64_t>(to_share(std::max(0.0, require(op.added_sum, "an added"))));
  router.jitter = to_share(2 * require(static_cast<double>(op.jitter), "a jitter of"));
  for (size_t e = 0; correction != nullptr && e < correction->size(); ++e)
    router.correction.push_back(to_share(require(static_cast<double>((*correction)[e]), "a correction of")));
  const double factor = std::ldexp(static_cast<double>(op.factor), -kShareBits) / weights.scale();
  const auto rescale_by = [&](double scale) {
    return signed_rescale(factor * require(scale, "an expert's factor of"), std::ldexp(1.0, kShareBits));
  };
  if (scales == nullptr) {
    router.factors = {rescale_by(1)};
  } else {
    for (const float scale : *scales) router.factors.push_back(rescale_by(static_cast<double>(scale)));
  }
  return router;
}

IntegerMix prepare_mix(const model::MixExpertsOp& op, int64_t used, const MixGrids& grids) {
  IntegerMix mix{.weight_zero_point = grids.weights.codes.zero_point,
                 .expert_zero_point = grids.experts.codes.zero_point,
                 .shared_zero_point = grids.shared.codes.zero_point,
                 .gate_zero_point = grids.gate.codes.zero_point,
                 .output = grids.out.codes};
  const double routed = grids.weights.scale() * grids.experts.scale() / grids.out.scale();
  double shared = op.shared ? grids.shared.scale() / grids.out.scale() : 0;
  double shared_bound = static_cast<double>(grids.shared.reach());
  if (op.shared_gate) {
    mix.gate = make_powers(grids.gate);
    shared = std::ldexp(shared, -kShareBits);
    shared_bound = std::ldexp(shared_bound, kShareBits);
  }
  // make_rescale() takes factors below 2^30.
  mix.bits = kMixBits;
  while (mix.bits > 0 && std::ldexp(std::max(routed, shared), mix.bits) >= 0x1p30) --mix.bits;
  mix.experts = make_rescale(std::ldexp(routed, mix.bits), static_cast<double>(used) *
                                                               static_cast<double>(grids.weights.reach()) *
                                                               static_cast<double>(grids.experts.reach()));
  if (op.shared) mix.shared = make_rescale(std::ldexp(shared, mix.bits), shared_bound);
  return mix;
}

}  // namespace qeval::quant
