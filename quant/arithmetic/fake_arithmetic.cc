#include "quant/arithmetic/fake_arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model/kernels/kernels.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {

using model::Tensor;

namespace {

template <typename Body>
void for_each_float_row(Tensor& tensor, const Body& body) {
  parallel_ranges(tensor.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) body(tensor.row<float>(r));
  });
}

std::vector<float> quantize_norm(const model::NormWeights& norm, const QuantSpec& spec) {
  std::vector<float> weight = norm.weight;
  if (!spec.enabled()) return weight;
  const auto n = static_cast<int64_t>(weight.size());
  const Range range = quant_kernels().range(weight.data(), n);
  if (std::isnan(range.lo)) fail("tensor {}.weight: a weight is not finite: cannot quantize", norm.name);
  quant_kernels().fake_quantize(weight.data(), n, make_grid(spec, range), weight.data());
  return weight;
}

/// Whether docs/specification.md#points says where an operation's tensors are rounded.
bool has_points(const model::Operation& operation) {
  if (!model::is_beyond_dense(operation)) return !std::holds_alternative<model::SplitLatentOp>(operation);
  const auto* attention = std::get_if<model::AttentionOp>(&operation);
  const auto* activate = std::get_if<model::ActivateOp>(&operation);
  const auto* multiply = std::get_if<model::MultiplyOp>(&operation);
  const auto* norm = std::get_if<model::NormOp>(&operation);
  const auto* add = std::get_if<model::AddOp>(&operation);
  if (attention != nullptr) return true;
  if (activate != nullptr) return activate->limit == 0 && activate->sparsity == 0;
  if (multiply != nullptr) return multiply->limit == 0 && multiply->offset == 0;
  if (norm != nullptr) return norm->module == Module::v_norm;
  if (add != nullptr) return add->to == model::Value::update && add->in == model::Value::mlp_update;
  if (const auto* scale = std::get_if<model::ScaleOp>(&operation)) return is_layer_factor(*scale);
  return std::holds_alternative<model::LinearOp>(operation) ||
         std::holds_alternative<model::RouteOp>(operation) ||
         std::holds_alternative<model::DispatchOp>(operation) ||
         std::holds_alternative<model::MixExpertsOp>(operation);
}

bool rounds_activations(const QuantConfig& qcfg, const model::ModelConfig& config) {
  return std::ranges::any_of(all_points(config), [&](const Point& point) {
    return point.slot != Slot::weight && qcfg[point].enabled();
  });
}

}  // namespace

void require_points(const model::ModelConfig& config) {
  require_operations(config, "fake-quantized arithmetic",
                     [](const model::Operation& operation) { return has_points(operation); });
}

FakeArithmetic::FakeArithmetic(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                               int64_t max_positions, const std::optional<FirstToken>& first)
    : FloatArithmetic(model, max_positions),
      points_(make_points(model.config, qcfg, ranges)),
      erf_gelu_(rounded_gelu_is_erf(model.config)) {
  if (rounds_activations(qcfg, model.config)) require_points(model.config);
  if (first) {
    require_operations(model.config, "ranges of position 0",
                       [](const model::Operation& operation) { return !model::is_beyond_dense(operation); });
    first_ = make_points(model.config, first->qcfg, first->ranges);
  }
  quantize_weights(qcfg);
}

FakeArithmetic::Points FakeArithmetic::make_points(const model::ModelConfig& config, const QuantConfig& qcfg,
                                                   const ActRanges& ranges) {
  Points result{PointMap<ActivationQuantizer>(config.num_layers), {}};
  for (const Point& point : all_points(config)) {
    if (point.slot == Slot::weight || !qcfg[point].enabled()) continue;
    result.points[point].spec = qcfg[point];
    if (needs_range(qcfg, point)) result.points[point].grid = make_grid(qcfg[point], ranges[point].value());
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    auto& outputs = result.linears.emplace_back();
    for (const model::Operation& operation : config.graph.block(layer).operations) {
      const auto* linear = std::get_if<model::LinearOp>(&operation);
      if (linear != nullptr) outputs[linear->module] = result.outputs(layer, linear->module, linear->operand);
    }
  }
  return result;
}

FakeArithmetic::OutputQuantizers FakeArithmetic::Points::outputs(int64_t layer, Module module,
                                                                 model::Operand operand) const {
  const std::optional<Point> second = operand_point(layer, operand);
  return {at(layer, module, Slot::output), second ? points[*second] : ActivationQuantizer{}};
}

void FakeArithmetic::quantize_weights(const QuantConfig& qcfg) {
  for (int64_t layer = 0; layer < config().num_layers; ++layer) {
    Block& block = blocks_.emplace_back();
    for (const model::Operation& operation : config().graph.block(layer).operations) {
      if (const auto* linear = std::get_if<model::LinearOp>(&operation)) {
        const QuantSpec& spec = qcfg[{layer, linear->module, Slot::weight}];
        if (spec.enabled() && linear->experts != 0) {
          const std::vector<model::LinearWeights>& experts = weights(layer).experts.at(linear->module);
          // Stored codes stay in the file, so that only experts that some token is given to are read.
          const bool stored = std::ranges::all_of(
              experts, [&](const model::LinearWeights& expert) { return is_stored_as(expert.weight, spec); });
          for (const model::LinearWeights& expert : experts) {
            if (stored) break;
            block.experts[linear->module].push_back(quantized_weight(expert.weight, spec));
          }
        } else if (spec.enabled()) {
          block.linears[linear->module] = quantized_weight(weights(layer, *linear).weight, spec);
        }
      } else if (const auto* norm = std::get_if<model::NormOp>(&operation)) {
        block.norms[norm->module] =
            quantize_norm(weights(layer, *norm), qcfg[{layer, norm->module, Slot::weight}]);
      }
    }
  }
  final_norm_ = model().final_norm.weight;
  if (config().graph.final_norm) {
    final_norm_ = quantize_norm(model().final_norm, qcfg[{0, Module::final_norm, Slot::weight}]);
  }
  const QuantSpec& head = qcfg[{0, Module::head, Slot::weight}];
  if (head.enabled()) head_ = quantized_weight(model().head.weight, head);
}

void FakeArithmetic::norm(int64_t layer, const model::NormOp& op, const Tensor& in, Tensor& out) const {
  const bool final = op.module == Module::final_norm;
  const model::NormWeights& stored = weights(layer, op);
  const std::vector<float>& weight = final ? final_norm_ : block(layer).norms.at(op.module);
  const float* bias = stored.bias.empty() ? nullptr : stored.bias.data();
  const int64_t n = op.width;
  if (&in != &out) out.resize(in.rows, n, sizeof(float));
  parallel_ranges(in.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const Points& points = of_row(in, r);
      const OutputQuantizers outputs = points.outputs(layer, op.module, op.operand);
      // Nothing but the head reads the final norm's output.
      const ActivationQuantizer& reader = final ? points.at(0, Module::head, Slot::input) : outputs.second;
      auto* y = out.row<float>(r);
      if (&in != &out) std::memcpy(y, in.row<float>(r), static_cast<size_t>(n) * sizeof(float));
      points.at(layer, op.module, Slot::input)(y, n);
      norm_row(op, weight.data(), bias, !final, y, y);
      outputs.first(y, n);
      quantize_heads(reader, op.operand == model::Operand::none ? n : op.group, y, n);
    }
  });
}

void FakeArithmetic::finish(const Tensor& residual, Tensor& out) const {
  FloatArithmetic::finish(residual, out);  // whose norm is this one's
  if (config().graph.final_norm) return;
  const ActivationQuantizer& reader = points_.at(0, Module::head, Slot::input);
  if (reader.enabled()) for_each_float_row(out, [&](float* row) { reader(row, out.cols); });
}

model::WeightView FakeArithmetic::weight_view(int64_t layer, const model::LinearOp& op) const {
  const model::LinearWeights& stored = weights(layer, op);
  const auto quantized = block(layer).linears.find(op.module);
  return quantized == block(layer).linears.end()
             ? model::view(stored)
             : view(quantized->second, stored.bias.empty() ? nullptr : stored.bias.data());
}

model::Epilogue FakeArithmetic::epilogue(const OutputQuantizers& quantizers) const {
  const bool some = quantizers.first.enabled() || quantizers.second.enabled();
  if (!some || quantizers.first.spec.dynamic || quantizers.second.spec.dynamic) return {};
  return {&quantizers, [](const void* context, float* x, int64_t n) {
            const auto& both = *static_cast<const OutputQuantizers*>(context);
            both.first(x, n);
            both.second(x, n);
          }};
}

void FakeArithmetic::quantize_heads(const ActivationQuantizer& quantizer, int64_t head_dim, float* heads,
                                    int64_t count) {
  if (!quantizer.spec.dynamic) {
    quantizer(heads, count);
    return;
  }
  for (int64_t i = 0; i < count; i += head_dim) quantizer(heads + i, head_dim);
}

void FakeArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  linear(points_, layer, in, targets);
  if (first_ && !in.first_rows.empty()) linear_first(layer, in, targets);
}

void FakeArithmetic::linear_first(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  Tensor rows;
  gather(in, in.first_rows, rows);
  std::vector<Tensor> made(targets.size());
  std::vector<Target> own;
  for (size_t i = 0; i < targets.size(); ++i) own.push_back({targets[i].op, &made[i]});
  linear(*first_, layer, rows, own);
  for (size_t i = 0; i < targets.size(); ++i) {
    Tensor& out = *targets[i].out;
    for (size_t r = 0; r < in.first_rows.size(); ++r) {
      std::memcpy(out.row<float>(in.first_rows[r]), made[i].row<float>(static_cast<int64_t>(r)),
                  static_cast<size_t>(out.cols) * sizeof(float));
    }
  }
}

void FakeArithmetic::linear(const Points& points, int64_t layer, const Tensor& in,
                            std::span<const Target> targets) const {
  // Projections of one input may differ in how they round it; those that agree are computed together.
  std::vector<bool> done(targets.size(), false);
  for (size_t t = 0; t < targets.size(); ++t) {
    if (done[t]) continue;
    // The down projection's input was rounded by multiply() or hadamard() where one of them made it.
    const auto input_of = [&](const Target& target) {
      const bool rounded = config().graph.block(layer).reads_product(target.op->module);
      return rounded ? ActivationQuantizer{} : points.at(layer, target.op->module, Slot::input);
    };
    const ActivationQuantizer input = input_of(targets[t]);
    Tensor rounded;
    if (input.enabled()) {
      rounded.resize(in.rows, in.cols, sizeof(float));
      parallel_ranges(in.rows, kRowGrain, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) {
          std::memcpy(rounded.row<float>(r), in.row<float>(r), static_cast<size_t>(in.cols) * sizeof(float));
          input(rounded.row<float>(r), in.cols);
        }
      });
    }
    std::vector<model::Product> products;
    std::vector<size_t> members;
    for (size_t i = t; i < targets.size(); ++i) {
      const ActivationQuantizer other = input_of(targets[i]);
      if (done[i] || other.spec != input.spec || (input.enabled() && other.grid != input.grid)) continue;
      done[i] = true;
      members.push_back(i);
      const model::WeightView weight = weight_view(layer, *targets[i].op);
      targets[i].out->resize(in.rows, weight.rows, sizeof(float));
      products.push_back({weight, targets[i].out->row<float>(0),
                          epilogue(points.linears[static_cast<size_t>(layer)].at(targets[i].op->module))});
    }
    model::multiply(input.enabled() ? rounded.row<float>(0) : in.row<float>(0), in.rows, products);
    for (size_t i = 0; i < members.size(); ++i) {
      if (products[i].epilogue.apply != nullptr) continue;
      Tensor& out = *targets[members[i]].out;
      const OutputQuantizers& q =
          points.linears[static_cast<size_t>(layer)].at(targets[members[i]].op->module);
      if (!q.first.enabled() && !q.second.enabled()) continue;
      for_each_float_row(out, [&](float* row) {
        q.first(row, out.cols);
        quantize_heads(q.second, config().head_dim, row, out.cols);
      });
    }
  }
}

void FakeArithmetic::rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
                            Tensor& heads) const {
  FloatArithmetic::rotate(layer, op, rows, heads);
  const std::optional<Point> point = operand_point(layer, op.operand);
  if (point) quantize_rows(*point, op.head_dim, heads);
}

void FakeArithmetic::quantize_rows(const Point& point, int64_t width, Tensor& tensor) const {
  if (!points_.points[point].enabled()) return;
  parallel_ranges(tensor.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      quantize_heads(of_row(tensor, r).points[point], width, tensor.row<float>(r), tensor.cols);
  });
}

void FakeArithmetic::softmax(const model::AttentionTile& tile) const {
  const model::AttentionOp& op = *tile.op;
  const int64_t stride = score_stride(tile);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const Points& points = of_position(tile.first_position + i);
    const ActivationQuantizer& scores = points.at(tile.layer, Module::qk_product, Slot::output);
    const ActivationQuantizer& capped = points.at(tile.layer, Module::softcap, Slot::output);
    const ActivationQuantizer& probabilities = points.at(tile.layer, Module::pv_product, Slot::input);
    const int64_t begin = tile.begin(i), end = tile.end(i);
    for (int64_t g = 0; g < op.group(); ++g) {
      float* row = tile.scores.as<float>() + (i * op.group() + g) * stride;
      scores(row + begin, end - begin);
      if (op.softcap != 0) {
        cap_scores(op, row + begin, end - begin);
        capped(row + begin, end - begin);
      }
      const float scale = op.softcap != 0 ? 1.0F : op.scale;
      if (op.sinks) {
        softmax_with_sink(row + begin, end - begin, scale, sink(tile, g));
      } else {
        model::kernels().softmax(row + begin, end - begin, scale);
      }
      probabilities(row + begin, end - begin);
      std::fill(row, row + begin, 0.0F);
      std::fill(row + end, row + tile.last_end(), 0.0F);
    }
  }
}

void FakeArithmetic::mix(const model::AttentionTile& tile, Tensor& out) const {
  FloatArithmetic::mix(tile, out);
  const int64_t width = tile.op->group() * tile.op->value_dim;
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const ActivationQuantizer& quantizer =
        of_position(tile.first_position + i).at(tile.layer, Module::pv_product, Slot::output);
    quantize_heads(quantizer, tile.op->value_dim, out.row<float>(tile.first_row + i) + tile.kv_head * width,
                   width);
  }
}

void FakeArithmetic::activate(int64_t layer, const model::ActivateOp& op, Tensor& gate) const {
  const auto enabled = [&](Slot slot) { return points_.at(layer, op.module, slot).enabled(); };
  if (!enabled(Slot::input) && !enabled(Slot::input2) && !enabled(Slot::output)) {
    FloatArithmetic::activate(layer, op, gate);
    return;
  }
  const model::Kernels& kernel = model::kernels();
  const int64_t n = gate.cols;
  const bool gelu = op.kind == model::Activation::gelu_tanh || op.kind == model::Activation::gelu_erf;
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<float> gates(static_cast<size_t>(n));
    for (int64_t r = first; r < last; ++r) {
      const Points& points = of_row(gate, r);
      auto* row = gate.row<float>(r);
      points.at(layer, op.module, Slot::input)(row, n);
      if (op.kind == model::Activation::silu) {
        kernel.sigmoid(row, n, gates.data());
        points.at(layer, op.module, Slot::input2)(gates.data(), n);
        kernel.multiply(gates.data(), n, row);
      } else if (gelu && erf_gelu_) {
        kernel.gelu_erf(row, n, row);
      } else {
        activate_row(layer, op, row, n);
      }
      points.at(layer, op.module, Slot::output)(row, n);
    }
  });
}

void FakeArithmetic::multiply(int64_t layer, const model::MultiplyOp& op, const Tensor& up,
                              Tensor& gate) const {
  const bool turned =
      op.module == Module::down && config().graph.block(layer).hadamard(model::Value::gate) != nullptr;
  const bool own_operand = op.by == model::Value::layer_inputs;
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<float> operand(own_operand ? static_cast<size_t>(gate.cols) : 0);
    for (int64_t r = first; r < last; ++r) {
      const float* by = up.row<float>(r) + op.first;
      if (own_operand) {
        std::copy_n(by, gate.cols, operand.data());
        of_row(gate, r).at(layer, op.module, Slot::input2)(operand.data(), gate.cols);
        by = operand.data();
      }
      multiply_row(op, by, gate.row<float>(r), gate.cols);
      if (turned) continue;
      of_row(gate, r).at(layer, op.module, Slot::input)(gate.row<float>(r), gate.cols);
    }
  });
}

void FakeArithmetic::hadamard(int64_t layer, const model::HadamardOp& op, Tensor& value) const {
  FloatArithmetic::hadamard(layer, op, value);
  quantize_rows(hadamard_point(layer, op), op.operand == model::Operand::none ? op.width : config().head_dim,
                value);
}

void FakeArithmetic::route(int64_t layer, const model::RouteOp& op, const Tensor& logits,
                           model::Routing& routing) const {
  FloatArithmetic::route(layer, op, logits, routing);
  const ActivationQuantizer& weights = points_.at(layer, Module::expert_mix, Slot::input);
  if (!weights.enabled()) return;
  for (int64_t r = 0; r < routing.rows; ++r) weights(routing.weights.data() + r * routing.used, routing.used);
}

void FakeArithmetic::expert_linear(int64_t layer, const Tensor& in, const model::Routing& routing,
                                   std::span<const Target> targets) const {
  for (const Target& target : targets) {
    const Module module = target.op->module;
    const ActivationQuantizer& point = points_.at(layer, module, Slot::input);
    const bool rounds = point.enabled() && !config().graph.block(layer).reads_product(module);
    Tensor rounded;
    if (rounds) {
      rounded.resize(in.rows, in.cols, sizeof(float));
      std::memcpy(rounded.row<float>(0), in.row<float>(0),
                  static_cast<size_t>(in.rows * in.cols) * sizeof(float));
      for_each_float_row(rounded, [&](float* row) { point(row, in.cols); });
    }
    std::vector<model::RowsProduct> products =
        expert_products(layer, rounds ? rounded : in, routing, {&target, 1});
    const auto quantized = block(layer).experts.find(module);
    if (quantized != block(layer).experts.end()) {
      const auto& stored = weights(layer).experts.at(module);
      auto product = products.begin();
      for (size_t e = 0; e < stored.size(); ++e) {
        if (routing.first[e] == routing.first[e + 1]) continue;
        const std::vector<float>& bias = stored[e].bias;
        (product++)->product.weight = view(quantized->second[e], bias.empty() ? nullptr : bias.data());
      }
    }
    model::multiply_rows(products);
    const ActivationQuantizer& output = points_.linears[static_cast<size_t>(layer)].at(module).first;
    if (output.enabled()) for_each_float_row(*target.out, [&](float* row) { output(row, target.out->cols); });
  }
}

void FakeArithmetic::mix_experts(int64_t layer, const model::MixExpertsOp& op, const ExpertResults& results,
                                 const model::Routing& routing, Tensor& out) const {
  FloatArithmetic::mix_experts(layer, op, results, routing, out);
  const ActivationQuantizer& output = points_.at(layer, op.module, Slot::output);
  if (output.enabled()) for_each_float_row(out, [&](float* row) { output(row, out.cols); });
}

void FakeArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  if (head_.rows == 0) {
    head_product(normed, first, count, logits);
  } else {
    const std::vector<float>& bias = model().head.bias;
    model::multiply_block(view(head_, bias.empty() ? nullptr : bias.data()), first, count,
                          normed.row<float>(0), normed.cols, normed.rows, logits, count);
  }
  points_.at(0, Module::head, Slot::output)(logits, normed.rows * count);
  finish_logits(logits, normed.rows * count);
}

}  // namespace qeval::quant
