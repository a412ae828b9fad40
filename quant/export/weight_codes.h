#pragma once

#include <string>

#include "quant/export/onnx_graph.h"
#include "quant/grid/quantized_matrix.h"

namespace qeval::quant {

/// Adds a quantized projection as codes and DequantizeLinear; returns the tensor [inputs, outputs] that a
/// MatMul multiplies by, named `name`. Codes are s8 or s16 with their zero points; where a grid's zero point
/// is outside of the type, the steps q − zero_point themselves, in s16 or s32.
std::string add_quantized_matrix(OnnxGraph& graph, const std::string& name, const QuantizedMatrix& matrix);

/// The same for a norm's weight [hidden_size], on the grid of its own range. Always s32 steps: such weights
/// lie around 1, and 16 bits of a range that excludes 0 need more.
std::string add_quantized_norm(OnnxGraph& graph, const std::string& name, const std::vector<float>& weight,
                               const QuantSpec& spec);

/// A float matrix, transposed to [inputs, outputs] if `transpose`, else [outputs, inputs].
std::string add_matrix(OnnxGraph& graph, const std::string& name, const model::Matrix& matrix,
                       bool transpose);

/// Grid of a norm's weight: its own smallest and largest elements. Not finite: an Error that names it.
Grid norm_grid(const std::string& name, const std::vector<float>& weight, const QuantSpec& spec);

}  // namespace qeval::quant
