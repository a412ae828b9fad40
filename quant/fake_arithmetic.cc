#include "quant/fake_arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "model/kernels/kernels.h"
#include "quant/editable_model.h"

namespace qeval::quant {

using model::NormPoint;
using model::Projection;
using model::Tensor;

namespace {

constexpr int64_t kRowGrain = 16;
constexpr std::array kProjections{Projection::q,    Projection::k,  Projection::v,   Projection::o,
                                  Projection::gate, Projection::up, Projection::down};

template <typename Body>
void for_each_row(Tensor& tensor, const Body& body) {
  parallel_ranges(tensor.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) body(tensor.row<float>(r));
  });
}

size_t index(int64_t layer) {
  return static_cast<size_t>(layer);
}
size_t index(Projection projection) {
  return static_cast<size_t>(projection);
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

}  // namespace

FakeArithmetic::FakeArithmetic(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                               int64_t max_positions)
    : FloatArithmetic(model, max_positions), points_(model.config.num_layers) {
  for (const Point& point : all_points(model.config)) {
    if (point.slot == Slot::weight || !qcfg[point].enabled()) continue;
    points_[point].spec = qcfg[point];
    if (needs_range(qcfg, point)) points_[point].grid = make_grid(qcfg[point], ranges[point].value());
  }
  for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
    auto& outputs = outputs_.emplace_back();
    for (const Projection p : kProjections) {
      outputs[index(p)].first = at(layer, linear_module(p), Slot::output);
    }
    outputs[index(Projection::v)].second = at(layer, Module::pv_product, Slot::input2);
  }
  quantize_weights(qcfg);
}

void FakeArithmetic::quantize_weights(const QuantConfig& qcfg) {
  for (int64_t layer = 0; layer < config().num_layers; ++layer) {
    auto& projections = projections_.emplace_back();
    for (const Projection p : kProjections) {
      const QuantSpec& spec = qcfg[{layer, linear_module(p), Slot::weight}];
      if (spec.enabled()) projections[index(p)] = quantize_matrix(weights(layer, p).weight, spec);
    }
    const model::LayerWeights& block = model().layers[index(layer)];
    auto& norms = norms_.emplace_back();
    norms[0] = quantize_norm(block.input_norm, qcfg[{layer, Module::input_norm, Slot::weight}]);
    norms[1] =
        quantize_norm(block.post_attention_norm, qcfg[{layer, Module::post_attention_norm, Slot::weight}]);
  }
  final_norm_ = quantize_norm(model().final_norm, qcfg[{0, Module::final_norm, Slot::weight}]);
  const QuantSpec& head = qcfg[{0, Module::head, Slot::weight}];
  if (head.enabled()) head_ = quantize_matrix(model().head.weight, head);
}

void FakeArithmetic::norm(int64_t layer, NormPoint point, const Tensor& residual, Tensor& out) const {
  const Module module = norm_module(point);
  const bool final = point == NormPoint::final;
  if (final) layer = 0;
  const model::NormWeights& stored = norm_of(model(), layer, module);
  const std::vector<float>& weight =
      final ? final_norm_ : norms_[index(layer)][point == NormPoint::input ? 0 : 1];
  const float* bias = stored.bias.empty() ? nullptr : stored.bias.data();
  const auto eps = static_cast<float>(config().norm_eps);
  const ActivationQuantizer& input = at(layer, module, Slot::input);
  const ActivationQuantizer& output = at(layer, module, Slot::output);
  // Nothing but the head reads the final norm's output.
  const ActivationQuantizer& reader = final ? at(0, Module::head, Slot::input) : ActivationQuantizer{};
  const model::Kernels& kernel = model::kernels();
  const int64_t n = residual.cols;
  out.resize(residual.rows, n, sizeof(float));
  parallel_ranges(residual.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      auto* y = out.row<float>(r);
      std::memcpy(y, residual.row<float>(r), static_cast<size_t>(n) * sizeof(float));
      input(y, n);
      if (config().norm == model::NormKind::layer) {
        kernel.layer_norm(y, weight.data(), bias, eps, n, y);
      } else if (final) {
        kernel.rms_norm(y, weight.data(), eps, n, y);
      } else {
        kernel.l2_norm(y, weight.data(), n, y);
      }
      output(y, n);
      reader(y, n);
    }
  });
}

model::WeightView FakeArithmetic::weight_view(int64_t layer, Projection projection) const {
  const model::LinearWeights& stored = weights(layer, projection);
  const QuantizedMatrix& quantized = projections_[index(layer)][index(projection)];
  return quantized.rows == 0 ? model::view(stored)
                             : view(quantized, stored.bias.empty() ? nullptr : stored.bias.data());
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

void FakeArithmetic::quantize_heads(const ActivationQuantizer& quantizer, float* heads, int64_t count) const {
  if (!quantizer.spec.dynamic) {
    quantizer(heads, count);
    return;
  }
  for (int64_t i = 0; i < count; i += config().head_dim) quantizer(heads + i, config().head_dim);
}

void FakeArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  // Projections of one input may differ in how they round it; those that agree are computed together.
  std::vector<bool> done(targets.size(), false);
  for (size_t t = 0; t < targets.size(); ++t) {
    if (done[t]) continue;
    // The down projection's input was rounded by multiply(), which made it.
    const auto input_of = [&](const Target& target) {
      return target.projection == Projection::down ? ActivationQuantizer{}
                                                   : at(layer, linear_module(target.projection), Slot::input);
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
      const model::WeightView weight = weight_view(layer, targets[i].projection);
      targets[i].out->resize(in.rows, weight.rows, sizeof(float));
      products.push_back({weight, targets[i].out->row<float>(0),
                          epilogue(outputs_[index(layer)][index(targets[i].projection)])});
    }
    model::multiply(input.enabled() ? rounded.row<float>(0) : in.row<float>(0), in.rows, products);
    for (size_t i = 0; i < members.size(); ++i) {
      if (products[i].epilogue.apply != nullptr) continue;
      Tensor& out = *targets[members[i]].out;
      const OutputQuantizers& q = outputs_[index(layer)][index(targets[members[i]].projection)];
      if (!q.first.enabled() && !q.second.enabled()) continue;
      for_each_row(out, [&](float* row) {
        q.first(row, out.cols);
        quantize_heads(q.second, row, out.cols);
      });
    }
  }
}

void FakeArithmetic::rotate(int64_t layer, Projection which, std::span<const int32_t> positions,
                            Tensor& heads) const {
  FloatArithmetic::rotate(layer, which, positions, heads);
  const ActivationQuantizer& quantizer =
      at(layer, Module::qk_product, which == Projection::q ? Slot::input : Slot::input2);
  if (!quantizer.enabled()) return;
  for_each_row(heads, [&](float* row) { quantize_heads(quantizer, row, heads.cols); });
}

void FakeArithmetic::softmax(const model::AttentionTile& tile) const {
  const ActivationQuantizer& scores = at(tile.layer, Module::qk_product, Slot::output);
  const ActivationQuantizer& probabilities = at(tile.layer, Module::pv_product, Slot::input);
  const float scale = 1.0F / std::sqrt(static_cast<float>(config().head_dim));
  const int64_t stride = score_stride(tile);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    const int64_t visible = tile.first_position + i + 1;
    for (int64_t g = 0; g < group(); ++g) {
      float* row = tile.scores.as<float>() + (i * group() + g) * stride;
      scores(row, visible);
      model::kernels().softmax(row, visible, scale);
      probabilities(row, visible);
      std::fill(row + visible, row + visible_keys(tile), 0.0F);
    }
  }
}

void FakeArithmetic::mix(const model::AttentionTile& tile, Tensor& out) const {
  FloatArithmetic::mix(tile, out);
  const ActivationQuantizer& quantizer = at(tile.layer, Module::pv_product, Slot::output);
  const int64_t width = group() * config().head_dim;
  for (int64_t i = 0; i < tile.query_count; ++i) {
    quantize_heads(quantizer, out.row<float>(tile.first_row + i) + tile.kv_head * width, width);
  }
}

void FakeArithmetic::activate(int64_t layer, Tensor& gate) const {
  const ActivationQuantizer& input = at(layer, Module::activation, Slot::input);
  const ActivationQuantizer& sigmoid = at(layer, Module::activation, Slot::input2);
  const ActivationQuantizer& output = at(layer, Module::activation, Slot::output);
  if (!input.enabled() && !sigmoid.enabled() && !output.enabled()) {
    FloatArithmetic::activate(layer, gate);
    return;
  }
  const model::Kernels& kernel = model::kernels();
  const int64_t n = gate.cols;
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<float> gates(static_cast<size_t>(n));
    for (int64_t r = first; r < last; ++r) {
      auto* row = gate.row<float>(r);
      input(row, n);
      if (config().activation == model::Activation::silu) {
        kernel.sigmoid(row, n, gates.data());
        sigmoid(gates.data(), n);
        kernel.multiply(gates.data(), n, row);
      } else {
        kernel.gelu_erf(row, n, row);
      }
      output(row, n);
    }
  });
}

void FakeArithmetic::multiply(int64_t layer, const Tensor& up, Tensor& gate) const {
  const ActivationQuantizer& input = at(layer, Module::down, Slot::input);
  parallel_ranges(gate.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      model::kernels().multiply(up.row<float>(r), gate.cols, gate.row<float>(r));
      input(gate.row<float>(r), gate.cols);
    }
  });
}

void FakeArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  if (head_.rows == 0) {
    FloatArithmetic::logits(normed, first, count, logits);
  } else {
    const std::vector<float>& bias = model().head.bias;
    model::multiply_block(view(head_, bias.empty() ? nullptr : bias.data()), first, count,
                          normed.row<float>(0), normed.cols, normed.rows, logits, count);
  }
  at(0, Module::head, Slot::output)(logits, normed.rows * count);
}

bool is_quantized_checkpoint(const std::filesystem::path& path) {
  std::error_code code;
  return std::filesystem::exists(path / "act_dict.json", code) &&
         std::filesystem::exists(path / "default_qcfg.json", code);
}

std::string quantization_hash(const QuantConfig& qcfg, const ActRanges& known,
                              const model::ModelConfig& config) {
  ActRanges used = complete_ranges(qcfg, known, config, "the ranges");
  const Point end{0, Module::final_norm, Slot::input};
  used[end] = known[end];
  return sha256_hex(qcfg_json(qcfg, config).dump() + act_ranges_json(used, config).dump());
}

Quantization load_quantization(const model::Model& model, const std::optional<std::filesystem::path>& qcfg,
                               const std::optional<std::filesystem::path>& act_ranges) {
  std::error_code code;
  const std::filesystem::path own_qcfg = model.path / "default_qcfg.json";
  const std::filesystem::path own_ranges = model.path / "act_dict.json";
  if (!qcfg && !std::filesystem::exists(own_qcfg, code)) {
    fail(
        "{}: no default_qcfg.json, which says how the fake-quantized model computes; make a checkpoint with "
        "`qeval quantize`, or give --qcfg",
        model.path.string());
  }
  Quantization result;
  result.qcfg = read_qcfg(qcfg ? *qcfg : own_qcfg, model.config);
  if (act_ranges || std::filesystem::exists(own_ranges, code)) {
    const std::filesystem::path& file = act_ranges ? *act_ranges : own_ranges;
    result.known_ranges = read_act_ranges(file, model.config);
    result.ranges = complete_ranges(result.qcfg, result.known_ranges, model.config, file.string());
  } else {  // weight-only schemes need none
    result.known_ranges = ActRanges(model.config.num_layers);
    result.ranges = complete_ranges(result.qcfg, result.known_ranges, model.config,
                                    model.path.string() + ": no act_dict.json and no --act-ranges");
  }
  result.hash = quantization_hash(result.qcfg, result.known_ranges, model.config);
  return result;
}

}  // namespace qeval::quant
