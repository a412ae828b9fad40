#include "quant/methods/layer_errors.h"

#include <algorithm>

#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/calibrate/observer.h"

namespace qeval::quant {
namespace {

/// An arithmetic that remembers the residual stream before every block and after the last.
template <typename Base>
class Tap : public Base {
 public:
  template <typename... Args>
  explicit Tap(int64_t layers, Args&&... args)
      : Base(std::forward<Args>(args)...), streams_(static_cast<size_t>(layers) + 1) {}

  void embed(std::span<const int32_t> tokens, const model::RowPositions& rows,
             model::Tensor& residual) const override {
    Base::embed(tokens, rows, residual);
    keep(0, residual);
  }
  void add(int64_t layer, const model::AddOp& op, const model::Tensor& update,
           model::Tensor& residual) const override {
    Base::add(layer, op, update, residual);
    keep(layer + 1, residual);  // the last addition of a block stays
  }
  void norm(int64_t layer, const model::NormOp& op, const model::Tensor& in,
            model::Tensor& out) const override {
    Base::norm(layer, op, in, out);
    if (op.out == model::Value::residual) keep(layer + 1, out);
  }
  const std::vector<float>& output(size_t layer) const { return streams_[layer + 1]; }

 private:
  void keep(int64_t place, const model::Tensor& residual) const {
    streams_[static_cast<size_t>(place)].assign(residual.row<float>(0),
                                                residual.row<float>(0) + residual.rows * residual.cols);
  }

  mutable std::vector<std::vector<float>> streams_;
};

}  // namespace

std::vector<double> layer_errors(const QuantizedModel& model, const Samples& samples) {
  const int64_t layers = model.base.config.num_layers;
  size_t longest = 0;
  for (const auto& sample : samples) longest = std::max(longest, sample.size());
  const auto positions = static_cast<int64_t>(longest);
  const ActRanges ranges =
      complete_ranges(model.qcfg, model.ranges, model.model().config, "the measured ranges");
  // A rotated residual stream is compared with one that is rotated, too.
  const auto& rotation = model.model().config.rotation;
  const model::Model& base = rotation && rotation->residual ? model.model() : model.base;
  const Tap<model::FloatArithmetic> exact(layers, base, positions);
  const Tap<FakeArithmetic> rounded(layers, model.model(), model.qcfg, ranges, positions, model.first);
  std::vector<double> errors(static_cast<size_t>(layers)), sizes(errors.size());
  for (const auto& sample : samples) {
    run_sample(base, exact, sample);
    run_sample(model.model(), rounded, sample);
    for (size_t layer = 0; layer < errors.size(); ++layer) {
      const std::vector<float>& x = exact.output(layer);
      const std::vector<float>& y = rounded.output(layer);
      for (size_t i = 0; i < x.size(); ++i) {
        const double difference = static_cast<double>(y[i]) - static_cast<double>(x[i]);
        errors[layer] += difference * difference;
        sizes[layer] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      }
    }
  }
  for (size_t layer = 0; layer < errors.size(); ++layer) {
    // A stream of zeros that stays one is exact, not 0 / 0.
    if (errors[layer] > 0) errors[layer] /= sizes[layer];
  }
  return errors;
}

}  // namespace qeval::quant
