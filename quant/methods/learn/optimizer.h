#pragma once

#include <array>
#include <vector>

#include "quant/methods/learn/parameters.h"

namespace qeval::quant {

/// A learning rate that falls along half a cosine: at step t of T, after W steps of linear warm-up,
/// min + (lr − min)·(1 + cos(π (t − W) / (T − W))) / 2; during warm-up lr·(t + 1) / W.
struct RateSchedule {
  double rate = 0, minimum = 0;
  double at(int64_t step, int64_t steps, int64_t warmup_steps) const;
  bool operator==(const RateSchedule&) const = default;
};

using RateSchedules = std::array<RateSchedule, kParameterGroups>;  ///< by ParameterGroup
using Rates = std::array<double, kParameterGroups>;

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019), here without decay: β 0.9 and 0.999, ε
/// 1e-8. The parameters must outlive it.
class AdamW {
 public:
  explicit AdamW(std::vector<Parameter<float>*> parameters);

  /// Moves every parameter against its gradient.
  void step(const Rates& rates);

  int64_t steps() const { return steps_; }
  const std::vector<Parameter<float>*>& parameters() const { return parameters_; }
  /// First and second moments of a parameter, for saving and restoring.
  struct Moments {
    std::vector<float> first, second;
  };
  std::vector<Moments>& moments() { return moments_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  std::vector<Parameter<float>*> parameters_;
  std::vector<Moments> moments_;
  int64_t steps_ = 0;
};

}  // namespace qeval::quant
