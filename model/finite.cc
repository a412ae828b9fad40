#include "model/finite.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>

#include "model/decoder.h"
#include "model/forwarding_arithmetic.h"

namespace qeval::model {
namespace {

/// Rows of the head that are asked at once: a row of its output is then one of these.
constexpr int64_t kCheckedHeadRows = 256;

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

/// " (its weight holds nan in row 3)", or nothing.
std::string fault_of(const LinearWeights& linear) {
  const Matrix& matrix = linear.weight;
  std::vector<float> row(static_cast<size_t>(matrix.cols));
  for (int64_t r = 0; r < matrix.rows; ++r) {
    matrix.decode_rows(r, 1, row.data());
    for (const float value : row) {
      if (!std::isfinite(value))
        return fmt::format(" (its weight holds {} in row {})", not_finite_text(static_cast<double>(value)),
                           r);
    }
  }
  return all_finite(linear.bias) ? "" : " (its bias is not finite)";
}

/// Another arithmetic, the output of every operation looked at until one has a value that is not finite.
class Watch final : public ForwardingArithmetic {
 public:
  Watch(const Model& model, const Arithmetic& inner) : ForwardingArithmetic(inner), model_(model) {}

  struct Found {
    std::string what;
    int64_t row;
  };
  const std::optional<Found>& found() const { return found_; }
  /// The row of the batch that is the first of those whose logits are asked next.
  void head_rows_from(int64_t row) { first_head_row_ = row; }

  void embed(std::span<const int32_t> tokens, const RowPositions& rows, Tensor& residual) const override {
    inner().embed(tokens, rows, residual);
    look(residual, [&] { return "the output of " + model_.embedding.name; });
  }
  void norm(int64_t layer, const NormOp& op, const Tensor& in, Tensor& out) const override {
    inner().norm(layer, op, in, out);
    look(out, [&] { return "the output of " + name_of(layer, op.module); });
  }
  void linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const override {
    if (targets.front().op->in == Value::mixed)
      look(in, [&] { return "the attention before " + name_of(layer, targets.front().op->module); });
    inner().linear(layer, in, targets);
    for (const Target& target : targets) {
      const Module module = target.op->module;
      look(*target.out, [&] {
        return "the output of " + name_of(layer, module) +
               fault_of(model_.layers[static_cast<size_t>(layer)].linear(module));
      });
    }
  }
  void rotate(int64_t layer, const RotateOp& op, const RowPositions& rows, Tensor& heads) const override {
    inner().rotate(layer, op, rows, heads);
    look(heads, [&] {
      return "the rotary embedding behind " + name_of(layer, op.value == Value::q ? Module::q : Module::k);
    });
  }
  void mix_experts(int64_t layer, const MixExpertsOp& op, const ExpertResults& results,
                   const Routing& routing, Tensor& out) const override {
    inner().mix_experts(layer, op, results, routing, out);
    look(out, [&] { return "the output of " + name_of(layer, op.module); });
  }
  void gate(int64_t layer, const GateOp& op, const Tensor& gate, Tensor& value) const override {
    inner().gate(layer, op, gate, value);
    look(value, [&] { return fmt::format("the gated mixer of block {}", layer); });
  }
  void convolve(int64_t layer, const ConvolveOp& op, std::span<const StateSegment> segments,
                Tensor& value) const override {
    inner().convolve(layer, op, segments, value);
    look(value, [&] { return "the output of " + name_of(layer, op.module); });
  }
  void delta_rule(int64_t layer, const DeltaRuleOp& op, const MixerInputs& in,
                  std::span<const StateSegment> segments, Tensor& out) const override {
    inner().delta_rule(layer, op, in, segments, out);
    look(out, [&] { return "the output of " + name_of(layer, Module::mixer_state); });
  }
  void state_space(int64_t layer, const StateSpaceOp& op, const MixerInputs& in,
                   std::span<const StateSegment> segments, Tensor& out) const override {
    inner().state_space(layer, op, in, segments, out);
    look(out, [&] { return "the output of " + name_of(layer, Module::mixer_state); });
  }
  void altup(int64_t layer, const AltupOp& op, const Tensor& predicted, const Tensor& update, Tensor& active,
             Tensor& others) const override {
    inner().altup(layer, op, predicted, update, active, others);
    look(active, [&] { return fmt::format("the residual streams of block {}", layer); });
  }
  void embed_layers(std::span<const int32_t> tokens, const Tensor& embedded, Tensor& out) const override {
    inner().embed_layers(tokens, embedded, out);
    look(out, [&] { return "the output of " + model_.layer_embedding.name; });
  }
  void add(int64_t layer, const AddOp& op, const Tensor& update, Tensor& residual) const override {
    inner().add(layer, op, update, residual);
    look(residual, [&] { return "the residual stream behind " + name_of(layer, op.module); });
  }
  void activate(int64_t layer, const ActivateOp& op, Tensor& gate) const override {
    inner().activate(layer, op, gate);
    look(gate, [&] { return "the output of " + name_of(layer, op.module); });
  }
  void multiply(int64_t layer, const MultiplyOp& op, const Tensor& up, Tensor& gate) const override {
    inner().multiply(layer, op, up, gate);
    look(gate, [&] { return "the product before " + name_of(layer, op.module); });
  }
  void hadamard(int64_t layer, const HadamardOp& op, Tensor& value) const override {
    inner().hadamard(layer, op, value);
    const std::string_view behind =
        op.value == Value::gate ? "the product before " : "the rotary embedding behind ";
    const Module module = op.value == Value::gate ? Module::down
                          : op.value == Value::q  ? Module::q
                                                  : Module::k;
    look(value, [&] { return fmt::format("the rotation of {}{}", behind, name_of(layer, module)); });
  }
  void finish(const Tensor& residual, Tensor& out) const override {
    inner().finish(residual, out);
    // Behind the head's input an arithmetic may keep it in a form of its own.
    look(
        out, [&] { return "the output of " + model_.final_norm.name; }, model_.head.weight.cols);
  }
  void logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const override {
    inner().logits(normed, first, count, logits);
    const std::scoped_lock lock(mutex_);  // tiles come from many threads
    for (int64_t r = 0; r < normed.rows; ++r) {
      const int64_t row = first_head_row_ + r;
      if (found_ && (!found_in_head_ || found_->row <= row)) return;
      if (all_finite({logits + r * count, static_cast<size_t>(count)})) continue;
      found_ = {"the output of " + model_.head.weight.name + fault_of(model_.head), row};
      found_in_head_ = true;
    }
  }

 private:
  static std::string name_of(int64_t layer, Module module) {
    return fmt::format("model.layers.{}.{}", layer, module_name(module));
  }

  template <typename What>
  void look(const Tensor& tensor, const What& what) const {
    look(tensor, what, tensor.cols);
  }
  /// At the first `cols` columns.
  template <typename What>
  void look(const Tensor& tensor, const What& what, int64_t cols) const {
    if (found_ || !inner().has_float_tensors()) return;
    for (int64_t r = 0; r < tensor.rows; ++r) {
      if (all_finite({tensor.row<float>(r), static_cast<size_t>(cols)})) continue;
      found_ = {what(), r};
      return;
    }
  }

  const Model& model_;
  int64_t first_head_row_ = 0;
  mutable std::optional<Found> found_;
  mutable bool found_in_head_ = false;
  mutable std::mutex mutex_;
};

}  // namespace

std::string not_finite_text(double value) {
  return std::isnan(value) ? "nan" : fmt::format("{}", value);
}

std::string first_not_finite(const Model& model, const Arithmetic& arithmetic,
                             std::span<const int32_t> tokens) {
  Watch watch(model, arithmetic);
  const auto length = std::ssize(tokens);
  KvSpan kv(watch, length, 1);
  Batch batch;
  batch.tokens.assign(tokens.begin(), tokens.end());
  for (int64_t i = 0; i < length; ++i) batch.positions.push_back(static_cast<int32_t>(i));
  if (model.config.depends_on_length()) batch.lengths.assign(tokens.size(), static_cast<int32_t>(length));
  batch.segments.push_back({.length = length, .kv = &kv});
  Decoder decoder(model, watch);
  decoder.forward(batch);
  for (int64_t first = 0; first < length && !watch.found(); first += kCheckedHeadRows) {
    std::vector<TokenQuery> queries;
    for (int64_t row = first; row < std::min(length, first + kCheckedHeadRows); ++row)
      queries.push_back({row, 0});
    watch.head_rows_from(first);
    decoder.answer(queries);
  }
  if (!watch.found()) return "no operation: computed alone, the input gives finite values";
  return fmt::format("{}, at token {} of the input (id {})", watch.found()->what, watch.found()->row,
                     tokens[static_cast<size_t>(watch.found()->row)]);
}

}  // namespace qeval::model
