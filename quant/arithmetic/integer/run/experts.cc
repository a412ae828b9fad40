// Mixtures of experts in integers (model/float_experts.cc says what they compute).

#include "quant/arithmetic/integer/run/experts.h"

#include <algorithm>
#include <limits>
#include <span>
#include <tuple>
#include <utility>

#include "model/expert_choice.h"
#include "quant/arithmetic/integer/integer_arithmetic.h"
#include "quant/arithmetic/integer/run/inputs.h"

namespace qeval::quant {

using model::Tensor;

namespace {

constexpr uint64_t kOne = uint64_t{1} << kShareBits;

/// exp(−δ · step).
uint64_t power(const PowerTable& table, int64_t difference) {
  const auto coarse = static_cast<size_t>(difference >> kFineBits);
  if (coarse >= table.coarse.size()) return 0;
  const auto fine = static_cast<size_t>(difference & ((1 << kFineBits) - 1));
  return (uint64_t{table.coarse[coarse]} * table.fine[fine] + kOne / 2) >> kShareBits;
}

/// 1 / (1 + exp(−x)) of a code.
uint64_t sigmoid(const PowerTable& table, int32_t zero_point, int16_t code) {
  const int64_t x = int64_t{code} - zero_point;
  const uint64_t t = power(table, std::max(x, -x));
  return ((x >= 0 ? kOne : t) << kShareBits) / (kOne + t);
}

/// share · x, both in 2^−kShareBits, x of up to 2^52.
uint64_t part_of(uint64_t x, uint64_t share) {
  return (x >> kShareBits) * share + ((x & (kOne - 1)) * share >> kShareBits);
}

struct Chosen {
  int32_t expert;
  uint64_t score;  ///< in parts of `whole`
};

/// The chosen by their scores, and what the scores are to be divided by.
std::pair<std::vector<Chosen>, uint64_t> choose_by_scores(const IntegerRouter& router,
                                                          std::span<const int16_t> logits) {
  std::vector<uint64_t> scores;
  uint64_t whole = kOne;
  if (router.scores == model::RouteOp::Scores::sigmoid) {
    for (const int16_t code : logits) scores.push_back(sigmoid(router.power, router.zero_point, code));
  } else {
    const int64_t top = *std::ranges::max_element(logits);
    whole = 0;
    for (const int16_t code : logits) whole += scores.emplace_back(power(router.power, top - code));
  }
  std::vector<int64_t> wanted(logits.begin(), logits.end());
  const bool corrected = !router.correction.empty(), grouped = router.used_groups < router.groups;
  if (corrected || grouped) {
    for (size_t e = 0; e < wanted.size(); ++e) {
      wanted[e] = static_cast<int64_t>((scores[e] << kShareBits) / whole);
      if (corrected) wanted[e] += router.correction[e];
    }
  }
  if (grouped) {
    model::hide_groups<int64_t>(router.groups, router.used_groups, corrected ? 2 : 1,
                                std::numeric_limits<int64_t>::min(), wanted);
  }
  std::vector<Chosen> chosen;
  uint64_t sum = 0;
  for (const int32_t expert : model::largest(std::span<const int64_t>(wanted), router.used))
    sum += chosen.emplace_back(expert, scores[static_cast<size_t>(expert)]).score;
  if (router.normalize) {
    sum = std::max(sum, part_of(whole, router.least_sum)) + part_of(whole, router.added_sum);
    whole = std::max<uint64_t>(sum, 1);
  }
  return {std::move(chosen), whole};
}

/// The best, then the best of the rest, each weighed against those that come near it.
std::vector<Chosen> choose_near_best(const IntegerRouter& router, std::span<const int16_t> logits) {
  std::vector<bool> hidden(logits.size(), false);
  std::vector<Chosen> chosen;
  for (int64_t i = 0; i < router.used; ++i) {
    size_t best = logits.size();
    for (size_t e = 0; e < logits.size(); ++e) {
      if (!hidden[e] && (best == logits.size() || logits[e] > logits[best])) best = e;
    }
    const int64_t top = int64_t{logits[best]} - router.zero_point;
    uint64_t sum = 0;
    for (size_t e = 0; e < logits.size(); ++e) {
      const int64_t x = int64_t{logits[e]} - router.zero_point;
      const int64_t factor = std::max(std::max(x, -x), top);
      const bool near = (top - x) * static_cast<int64_t>(kOne) <= router.jitter * factor;
      if (near && !hidden[e]) sum += power(router.power, top - x);
    }
    chosen.push_back({static_cast<int32_t>(best), (kOne << kShareBits) / sum});
    hidden[best] = true;
  }
  return chosen;
}

}  // namespace

void choose_experts(const IntegerRouter& router, const int16_t* logits, int32_t* experts, int32_t* weights) {
  const std::span codes(logits, static_cast<size_t>(router.experts));
  std::vector<Chosen> chosen;
  uint64_t whole = kOne;
  if (router.scores == model::RouteOp::Scores::sparse_mixer) {
    chosen = choose_near_best(router, codes);
  } else {
    std::tie(chosen, whole) = choose_by_scores(router, codes);
  }
  std::ranges::sort(chosen, {}, &Chosen::expert);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto [expert, score] = chosen[i];
    const auto share = static_cast<int64_t>(((score << kShareBits) + whole / 2) / whole);
    const Rescale& factor = router.factors[router.factors.size() == 1 ? 0 : static_cast<size_t>(expert)];
    experts[i] = expert;
    weights[i] = requantize(share, factor, router.codes);
  }
}

void IntegerArithmetic::dispatch(int64_t, const model::DispatchOp&, const Tensor& in,
                                 const model::Routing& routing, Tensor& out) const {
  gather(in, routing.source, out);
}

void IntegerArithmetic::expert_linear(int64_t layer, const Tensor& in, const model::Routing& routing,
                                      std::span<const Target> targets) const {
  LinearInputs inputs(in);
  std::vector<LinearTask> tasks;
  for (const Target& target : targets) {
    const std::vector<IntegerMatrix>& experts = layer_at(layer).experts.at(target.op->module);
    // They differ in nothing that their input is read by, but in whether zero points are to come off.
    const auto reader = std::ranges::find_if(experts, &IntegerMatrix::has_zero_points);
    const LinearInput& input = inputs.read(reader == experts.end() ? experts.front() : *reader);
    target.out->resize(in.rows, target.op->rows, sizeof(int16_t));
    for (size_t e = 0; e < experts.size(); ++e)
      add_tasks(experts[e], input, routing.first[e], routing.first[e + 1], *target.out, tasks);
  }
  run(tasks);
}

void IntegerArithmetic::mix_experts(int64_t layer, const model::MixExpertsOp& op,
                                    const ExpertResults& results, const model::Routing& routing,
                                    Tensor& out) const {
  const IntegerMix& mix = layer_at(layer).mix;
  out.resize(routing.rows, op.width, sizeof(int16_t));
  parallel_ranges(routing.rows, kIntegerRowGrain, [&](int64_t first, int64_t last) {
    std::vector<int64_t> sums(static_cast<size_t>(op.width));
    for (int64_t r = first; r < last; ++r) {
      std::ranges::fill(sums, 0);
      for (int64_t j = r * routing.used; j < (r + 1) * routing.used; ++j) {
        const int64_t weight = routing.codes[static_cast<size_t>(j)] - mix.weight_zero_point;
        const auto* x = results.experts.row<int16_t>(routing.place[static_cast<size_t>(j)]);
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * (x[i] - mix.expert_zero_point);
      }
      for (int64_t& sum : sums) sum = rescale(sum, mix.experts);
      if (op.shared) {
        const auto share = op.shared_gate
                               ? static_cast<int64_t>(sigmoid(mix.gate, mix.gate_zero_point,
                                                              *results.shared_gate.row<int16_t>(r)))
                               : int64_t{1};
        const auto* x = results.shared.row<int16_t>(r);
        for (size_t i = 0; i < sums.size(); ++i)
          sums[i] += rescale(share * (x[i] - mix.shared_zero_point), mix.shared);
      }
      auto* codes = out.row<int16_t>(r);
      for (size_t i = 0; i < sums.size(); ++i) {
        codes[i] = static_cast<int16_t>(std::clamp<int64_t>(
            shift_rounded(sums[i], mix.bits) + mix.output.zero_point, mix.output.lo, mix.output.hi));
      }
    }
  });
}

}  // namespace qeval::quant
