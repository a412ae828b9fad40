#include "quant/methods/learn/optimizer.h"

#include <cmath>
#include <numbers>

#include "base/parallel.h"

namespace qeval::quant {

double RateSchedule::at(int64_t step, int64_t steps, int64_t warmup_steps) const {
  if (step < warmup_steps) return rate * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const double done = static_cast<double>(step - warmup_steps) / static_cast<double>(steps - warmup_steps);
  return minimum + (rate - minimum) * (1 + std::cos(std::numbers::pi * done)) / 2;
}

AdamW::AdamW(std::vector<Parameter<float>*> parameters) : parameters_(std::move(parameters)) {
  for (const Parameter<float>* p : parameters_)
    moments_.push_back({std::vector<float>(p->value.size()), std::vector<float>(p->value.size())});
}

void AdamW::step(const Rates& rates) {
  constexpr double kBeta1 = 0.9;
  constexpr double kBeta2 = 0.999;
  constexpr float kEpsilon = 1e-8F;
  constexpr int64_t kValuesPerTask = 1 << 14;
  ++steps_;
  const double correction1 = 1 - std::pow(kBeta1, static_cast<double>(steps_));
  const auto correction2 = static_cast<float>(std::sqrt(1 - std::pow(kBeta2, static_cast<double>(steps_))));
  for (size_t p = 0; p < parameters_.size(); ++p) {
    Parameter<float>& parameter = *parameters_[p];
    Moments& moments = moments_[p];
    const auto step_size =
        static_cast<float>(rates[static_cast<size_t>(parameter.group)] * parameter.rate_factor / correction1);
    parallel_ranges(std::ssize(parameter.value), kValuesPerTask, [&](int64_t first, int64_t last) {
      for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
        const float g = parameter.gradient[i];
        float& m = moments.first[i];
        float& v = moments.second[i];
        m += (g - m) * static_cast<float>(1 - kBeta1);
        v = v * static_cast<float>(kBeta2) + static_cast<float>(1 - kBeta2) * g * g;
        parameter.value[i] -= step_size * (m / (std::sqrt(v) / correction2 + kEpsilon));
      }
    });
  }
}

}  // namespace qeval::quant
