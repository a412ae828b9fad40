#include "quant/calibrate/block_inputs.h"

#include <algorithm>

#include "quant/calibrate/observer.h"

namespace qeval::quant {
namespace {

class InputTap : public model::FloatArithmetic {
 public:
  InputTap(const model::Model& model, int64_t max_positions, const BlockInputs& visitor)
      : FloatArithmetic(model, max_positions), visitor_(visitor) {}

  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override {
    visitor_.input(layer, targets, in);
    FloatArithmetic::linear(layer, in, targets);
  }

  void expert_linear(int64_t layer, const model::Tensor& in, const model::Routing& routing,
                     std::span<const Target> targets) const override {
    for (size_t e = 0; visitor_.expert_input && e + 1 < routing.first.size(); ++e) {
      const int64_t count = routing.first[e + 1] - routing.first[e];
      if (count == 0) continue;
      visitor_.expert_input(layer, targets, static_cast<int64_t>(e), in.row<float>(routing.first[e]), count,
                            in.cols);
    }
    FloatArithmetic::expert_linear(layer, in, routing, targets);
  }

 private:
  const BlockInputs& visitor_;
};

}  // namespace

void for_each_block_inputs(const model::Model& model, std::string_view what, const Samples& samples,
                           const BlockInputs& visitor,
                           const std::function<void(int64_t, int64_t)>& progress) {
  require_operations(model.config, what, [](const model::Operation& operation) {
    const auto* attention = std::get_if<model::AttentionOp>(&operation);
    const auto* activate = std::get_if<model::ActivateOp>(&operation);
    return (attention == nullptr || attention->kv_from == 0) &&
           !std::holds_alternative<model::AltupOp>(operation) &&
           (activate == nullptr || activate->module != Module::layer_input_activation);
  });
  size_t longest = 0;
  for (const auto& sample : samples) longest = std::max(longest, sample.size());
  const InputTap arithmetic(model, static_cast<int64_t>(longest), visitor);
  model::Decoder decoder(model, arithmetic);
  model::KvSpan kv(arithmetic, static_cast<int64_t>(longest), 1);
  std::vector<model::Tensor> residuals(samples.size());
  for (size_t i = 0; i < samples.size(); ++i)
    decoder.embed(sample_batch(model, samples[i], kv), residuals[i]);
  for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
    for (size_t i = 0; i < samples.size(); ++i)
      decoder.advance(layer, sample_batch(model, samples[i], kv), residuals[i]);
    visitor.end_of_block(layer);
    if (progress) progress(layer + 1, model.config.num_layers);
  }
}

}  // namespace qeval::quant
