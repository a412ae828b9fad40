#include "quant/methods/smoothquant.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/grid/kernels/quant_kernels.h"

namespace qeval::quant {
namespace {

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
  for (int64_t layer = 0; layer < channel_maxima.num_layers(); ++layer) {
    for (const model::ScaleEdge& edge : scale_edges(model.model().config.graph.block(layer))) {
      const bool from_norm = is_norm(edge.producer);
      if (variant == Variant::original && !from_norm) continue;
      std::vector<EditableModel::Linear> consumers;
      for (const Module module : edge.consumers) {
        for (const EditableModel::Linear& linear : model.linears(layer, module)) consumers.push_back(linear);
      }
      const std::vector<float> scales =
          smoothing_scales(consumers, channel_maxima[{layer, edge.consumers.front(), Slot::input}], a);
      check.add(layer, edge_name(edge), scales);
      apply_scales(model, layer, edge, scales);
    }
  }
  return check.warnings();
}

void apply_scales(EditableModel& model, int64_t layer, const model::ScaleEdge& edge,
                  const std::vector<float>& scales) {
  if (is_norm(edge.producer)) {
    model::NormWeights& norm = model.norm(layer, edge.producer);
    divide(norm.weight, scales);
    divide(norm.bias, scales);
  } else {
    divide_rows(model.linear(layer, edge.producer), scales);
  }
  for (const Module module : edge.consumers) {
    for (const EditableModel::Linear& linear : model.linears(layer, module)) multiply_columns(linear, scales);
  }
}

}  // namespace qeval::quant
