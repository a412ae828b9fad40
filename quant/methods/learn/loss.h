#pragma once

#include <string_view>
#include <vector>

#include "model/weights.h"
#include "quant/methods/learn/matrix.h"

namespace qeval::quant {

/// What end-to-end learning minimises.
enum class LearnLoss : uint8_t {
  output,  ///< mean squared error at the last block's output (docs/specification.md#methods; the paper's)
  logits   ///< Kullback-Leibler divergence of the next-token distributions
};
std::string_view loss_name(LearnLoss loss);
/// An unknown name is an Error that lists the known ones.
LearnLoss parse_loss(std::string_view name);

/// loss += share · mean (y − target)²; gradient ← share · d/dy of it. Shapes [tokens · hidden], all equal.
void add_output_loss(const std::vector<float>& y, const std::vector<float>& target, double share,
                     double& loss, std::vector<float>& gradient);

/// Mean over tokens of KL(p‖q), p the next-token distribution that the model's final norm and head make of
/// the target's residual stream, q that of y's, in nats (distillation as of Hinton et al. 2015 at
/// temperature 1). Norm and head are the float model's on both sides.
template <typename Real>
class LogitLoss {
 public:
  explicit LogitLoss(const model::Model& model);

  /// y, target [tokens, hidden]: outputs of the last block. loss += share · the mean; gradient [tokens,
  /// hidden] ← share · d/dy of it. Parallel; the same bits for any number of threads.
  void add(const std::vector<Real>& y, const std::vector<Real>& target, double share, double& loss,
           std::vector<Real>& gradient);

 private:
  void normalize(const Real* x, int64_t rows, Real* out) const;
  void normalize_backward(const Real* x, const Real* d_out, int64_t rows, Real* dx) const;

  /// Logits → those with the model's factor and soft cap, in place.
  void finish(Real* logits) const;

  const model::ModelConfig& config_;
  std::vector<Real> norm_weight_, norm_bias_;  // [hidden], the bias may be empty
  std::vector<Real> head_, head_bias_;         // [vocabulary, hidden]; [vocabulary] or empty
  Scratch<Real> normed_, logits_, d_normed_;
};

}  // namespace qeval::quant
