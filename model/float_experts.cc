// Mixtures of experts in float32 (docs/architectures.md#experts).

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "model/expert_choice.h"
#include "model/float_arithmetic.h"
#include "model/kernels/gemm.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// One row's choice.
class Choice {
 public:
  Choice(const RouteOp& op, std::span<const float> logits, const float* correction, const float* scales)
      : op_(op), logits_(logits) {
    if (op.scores == RouteOp::Scores::sparse_mixer) {
      choose_near_best();
    } else {
      choose(correction);
    }
    if (scales != nullptr) {
      for (auto& [expert, weight] : chosen_) weight *= scales[expert];
    }
    std::ranges::sort(chosen_);
  }

  const std::vector<std::pair<int32_t, float>>& chosen() const { return chosen_; }

 private:
  void choose(const float* correction) {
    std::vector<float> scores(logits_.begin(), logits_.end());
    const auto n = std::ssize(scores);
    if (op_.scores == RouteOp::Scores::softmax) {
      kernels().softmax(scores.data(), n, 1.0F);
    } else {
      for (float& score : scores) score = sigmoid(score);
    }
    std::vector<float> wanted = scores;
    for (int64_t e = 0; correction != nullptr && e < n; ++e) wanted[static_cast<size_t>(e)] += correction[e];
    // A group counts by its two best experts where they are corrected, else by its best.
    if (op_.used_groups < op_.groups)
      hide_groups<float>(op_.groups, op_.used_groups, correction != nullptr ? 2 : 1, kHidden, wanted);
    // Equal scores of unequal logits are not equal: what a softmax rounds away must not decide.
    const bool by_logits = correction == nullptr && op_.used_groups == op_.groups;
    float sum = 0;
    for (const int32_t expert : largest(by_logits ? logits_ : std::span<const float>(wanted), op_.used)) {
      const float score = scores[static_cast<size_t>(expert)];
      chosen_.emplace_back(expert, score);
      sum += score;
    }
    if (op_.normalize)
      sum = std::max(sum, static_cast<float>(op_.least_sum)) + static_cast<float>(op_.added_sum);
    for (auto& [expert, weight] : chosen_) weight = (op_.normalize ? weight / sum : weight) * op_.factor;
  }

  /// Phi-MoE: the best, then the best of the rest, each weighed against those that come near it.
  void choose_near_best() {
    std::vector<float> left(logits_.begin(), logits_.end());
    for (int64_t i = 0; i < op_.used; ++i) {
      const auto best = std::ranges::max_element(left);
      const float top = *best;
      float sum = 0;
      for (size_t e = 0; e < left.size(); ++e) {
        const float factor = std::max(std::abs(logits_[e]), top);
        const bool near = !((top - logits_[e]) / factor > 2 * op_.jitter);
        if (near && left[e] != kHidden) sum += std::exp(left[e] - top);
      }
      chosen_.emplace_back(static_cast<int32_t>(best - left.begin()), 1.0F / sum);
      *best = kHidden;
    }
  }

  const RouteOp& op_;
  std::span<const float> logits_;
  std::vector<std::pair<int32_t, float>> chosen_;
};

}  // namespace

void FloatArithmetic::route(int64_t layer, const RouteOp& op, const Tensor& logits, Routing& routing) const {
  const auto& vectors = weights(layer).vectors;
  const float* correction = op.correction ? vectors.at(Module::router).data() : nullptr;
  const float* scales = op.expert_scale ? vectors.at(Module::expert_mix).data() : nullptr;
  routing.rows = logits.rows;
  routing.used = op.used;
  routing.experts.resize(static_cast<size_t>(logits.rows * op.used));
  routing.weights.resize(routing.experts.size());
  parallel_ranges(logits.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const Choice choice(op, {logits.row<float>(r), static_cast<size_t>(logits.cols)}, correction, scales);
      auto at = static_cast<size_t>(r * op.used);
      for (const auto& [expert, weight] : choice.chosen()) {
        routing.experts[at] = expert;
        routing.weights[at++] = weight;
      }
    }
  });
  routing.sort(op.experts);
}

void FloatArithmetic::dispatch(int64_t, const DispatchOp&, const Tensor& in, const Routing& routing,
                               Tensor& out) const {
  out.resize(std::ssize(routing.source), in.cols, sizeof(float));
  parallel_ranges(out.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      std::memcpy(out.row<float>(r), in.row<float>(routing.source[static_cast<size_t>(r)]),
                  static_cast<size_t>(in.cols) * sizeof(float));
    }
  });
}

std::vector<RowsProduct> FloatArithmetic::expert_products(int64_t layer, const Tensor& in,
                                                          const Routing& routing,
                                                          std::span<const Target> targets) const {
  std::vector<RowsProduct> products;
  for (const Target& target : targets) {
    const std::vector<LinearWeights>& all = weights(layer).experts.at(target.op->module);
    target.out->resize(in.rows, target.op->rows, sizeof(float));
    for (size_t e = 0; e < all.size(); ++e) {
      const int64_t first = routing.first[e], count = routing.first[e + 1] - first;
      if (count == 0) continue;  // whose weights need not be read
      products.push_back({{view(all[e]), target.out->row<float>(first)}, in.row<float>(first), count});
    }
  }
  return products;
}

void FloatArithmetic::expert_linear(int64_t layer, const Tensor& in, const Routing& routing,
                                    std::span<const Target> targets) const {
  multiply_rows(expert_products(layer, in, routing, targets));
}

void FloatArithmetic::mix_experts(int64_t, const MixExpertsOp& op, const ExpertResults& results,
                                  const Routing& routing, Tensor& out) const {
  out.resize(routing.rows, op.width, sizeof(float));
  parallel_ranges(routing.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      auto* sum = out.row<float>(r);
      std::fill_n(sum, op.width, 0.0F);
      for (int64_t j = r * routing.used; j < (r + 1) * routing.used; ++j) {
        const float weight = routing.weights[static_cast<size_t>(j)];
        const auto* x = results.experts.row<float>(routing.place[static_cast<size_t>(j)]);
        for (int64_t i = 0; i < op.width; ++i) sum[i] += weight * x[i];
      }
      if (!op.shared) continue;
      const float share = op.shared_gate ? sigmoid(*results.shared_gate.row<float>(r)) : 1.0F;
      const auto* x = results.shared.row<float>(r);
      for (int64_t i = 0; i < op.width; ++i) sum[i] += share * x[i];
    }
  });
}

}  // namespace qeval::model
