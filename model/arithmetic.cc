#include "model/arithmetic.h"

#include <numeric>

#include "base/error.h"

namespace qeval::model {

void Routing::sort(int64_t expert_count) {
  first.assign(static_cast<size_t>(expert_count) + 1, 0);
  for (const int32_t expert : experts) ++first[static_cast<size_t>(expert) + 1];
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<int64_t> next(first.begin(), first.end() - 1);
  source.resize(experts.size());
  place.resize(experts.size());
  for (size_t i = 0; i < experts.size(); ++i) {
    const int64_t at = next[static_cast<size_t>(experts[i])]++;
    place[i] = at;
    source[static_cast<size_t>(at)] = static_cast<int64_t>(i) / used;
  }
}

namespace {

[[noreturn]] void lacks(const Arithmetic& arithmetic, std::string_view what) {
  fail("{} arithmetic has no {}; accepted: float arithmetic", arithmetic.name(), what);
}

}  // namespace

void Arithmetic::route(int64_t, const RouteOp& op, const Tensor&, Routing&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::dispatch(int64_t, const DispatchOp& op, const Tensor&, const Routing&, Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::expert_linear(int64_t, const Tensor&, const Routing&, std::span<const Target>) const {
  lacks(*this, "linear map of experts");
}
void Arithmetic::mix_experts(int64_t, const MixExpertsOp& op, const ExpertResults&, const Routing&,
                             Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::gate(int64_t, const GateOp& op, const Tensor&, Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::scale(int64_t, const ScaleOp& op, const Tensor&, Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::clamp(int64_t, const ClampOp& op, Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::convolve(int64_t, const ConvolveOp& op, std::span<const StateSegment>, Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::delta_rule(int64_t, const DeltaRuleOp& op, const MixerInputs&, std::span<const StateSegment>,
                            Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::state_space(int64_t, const StateSpaceOp& op, const MixerInputs&,
                             std::span<const StateSegment>, Tensor&) const {
  lacks(*this, operation_name(op));
}
int64_t Arithmetic::state_offset(int64_t, int64_t) const {
  lacks(*this, "recurrent state");
}
void Arithmetic::altup(int64_t, const AltupOp& op, const Tensor&, const Tensor&, Tensor&, Tensor&) const {
  lacks(*this, operation_name(op));
}
void Arithmetic::embed_layers(std::span<const int32_t>, const Tensor&, Tensor&) const {
  lacks(*this, "inputs of layers");
}

}  // namespace qeval::model
