#include "quant/smoothquant.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/kernels/quant_kernels.h"
#include "quant/train/parameters.h"

namespace qeval::quant {
namespace {

using model::NormPoint;
using model::Projection;

constexpr float kLeast = 1e-5F;

/// s, from the consumers' input maxima and weights. Channels that are always 0, or whose weights are, have
/// nothing to balance and keep their scale. So do those so close to it that the paper's code raises their
/// scale to 1e-5: it would make the producer's other uses of the channel 1e5 times as large, and their grid
/// with them.
std::vector<float> smoothing_scales(const std::vector<EditableModel::Linear>& consumers,
                                    const std::vector<float>& input_maxima, float alpha) {
  std::vector<float> weight_maxima(input_maxima.size(), 0.0F);
  for (const auto& consumer : consumers) {
    for (int64_t r = 0; r < consumer.rows; ++r) {
      quant_kernels().abs_max(consumer.row(r), consumer.cols, weight_maxima.data());
    }
  }
  std::vector<float> scales(input_maxima.size());
  for (size_t j = 0; j < scales.size(); ++j) {
    const float weight = std::max(weight_maxima[j], kLeast);
    const float scale = std::pow(input_maxima[j], alpha) / std::pow(weight, 1.0F - alpha);
    const bool dead = input_maxima[j] == 0 || weight_maxima[j] == 0 || scale < kLeast;
    scales[j] = dead ? 1.0F : scale;
  }
  return scales;
}

void multiply_columns(const EditableModel::Linear& linear, const std::vector<float>& scales) {
  for (int64_t r = 0; r < linear.rows; ++r) {
    float* row = linear.row(r);
    for (size_t j = 0; j < scales.size(); ++j) row[j] *= scales[j];
  }
}

void divide(std::vector<float>& values, const std::vector<float>& scales) {
  for (size_t j = 0; j < values.size(); ++j) values[j] /= scales[j];  // an absent bias is empty
}

void divide_rows(const EditableModel::Linear& linear, const std::vector<float>& scales) {
  for (int64_t r = 0; r < linear.rows; ++r) {
    float* row = linear.row(r);
    for (int64_t j = 0; j < linear.cols; ++j) row[j] /= scales[static_cast<size_t>(r)];
  }
  divide(linear.bias, scales);
}

}  // namespace

Variant parse_variant(std::string_view name) {
  if (name == "modified") return Variant::modified;
  if (name == "original") return Variant::original;
  fail("{}: unknown variant; accepted: modified, original", printable(name));
}

std::string_view name(Variant variant) {
  return variant == Variant::modified ? "modified" : "original";
}

std::vector<Warning> smooth(EditableModel& model, const PointMap<std::vector<float>>& channel_maxima,
                            Variant variant, double alpha) {
  ScaleCheck check("smoothing scales");
  const auto a = static_cast<float>(alpha);
  const int64_t num_layers = channel_maxima.num_layers();
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const auto maxima = [&](Module module) -> const std::vector<float>& {
      return channel_maxima[{layer, module, Slot::input}];
    };
    const auto smooth_norm = [&](std::string_view pair, NormPoint point,
                                 const std::vector<EditableModel::Linear>& consumers,
                                 const std::vector<float>& input_maxima) {
      const std::vector<float> scales = smoothing_scales(consumers, input_maxima, a);
      check.add(layer, pair, scales);
      model::NormWeights& norm = model.norm(layer, point);
      divide(norm.weight, scales);
      divide(norm.bias, scales);
      for (const auto& consumer : consumers) multiply_columns(consumer, scales);
    };
    const auto smooth_linear = [&](std::string_view pair, const EditableModel::Linear& producer,
                                   const EditableModel::Linear& consumer,
                                   const std::vector<float>& input_maxima) {
      const std::vector<float> scales = smoothing_scales({consumer}, input_maxima, a);
      check.add(layer, pair, scales);
      divide_rows(producer, scales);
      multiply_columns(consumer, scales);
    };
    const auto linear = [&](Projection p) { return model.linear(layer, p); };
    smooth_norm(pair_name(LetPair::norm_qkv), NormPoint::input,
                {linear(Projection::q), linear(Projection::k), linear(Projection::v)}, maxima(Module::q));
    smooth_norm(pair_name(LetPair::norm_gate_up), NormPoint::post_attention,
                {linear(Projection::gate), linear(Projection::up)}, maxima(Module::gate));
    if (variant == Variant::original) continue;
    const auto v = linear(Projection::v), o = linear(Projection::o);
    if (v.rows == o.cols) smooth_linear(pair_name(LetPair::v_o), v, o, maxima(Module::o));
    smooth_linear(pair_name(LetPair::up_down), linear(Projection::up), linear(Projection::down),
                  maxima(Module::down));
  }
  return check.warnings();
}

}  // namespace qeval::quant
