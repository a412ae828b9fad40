#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "model/weights.h"
#include "quant/arithmetic/fake_arithmetic.h"

namespace qeval::quant {

/// Names in an export's folder.
inline constexpr const char* kOnnxFile = "model.onnx";
inline constexpr const char* kOnnxTensorFile = "model.onnx.data";
inline constexpr const char* kEncodingsFile = "model.encodings";

struct ExportSummary {
  int64_t nodes = 0;
  int64_t points = 0;  ///< quantized activations
  int64_t bytes = 0;   ///< of the tensor file
};

/// Writes the quantized model as ONNX: model.onnx, with QuantizeLinear and DequantizeLinear at every point
/// and weights as codes, and model.onnx.data (decoder_graph.h says what it computes). `folder` must exist.
/// The model file comes last, so that one that is there is whole. Throws Error for what has no exact form, by
/// the name of its point.
ExportSummary export_onnx(const model::Model& model, const Quantization& quantization, int64_t max_positions,
                          const std::string& version, const std::filesystem::path& folder);

/// Writes the float model as ONNX and model.encodings: the grids of its tensors and weights, by their names
/// in that graph, for tool-chains that quantize for themselves. A grid has 2^bitwidth codes, value = (code +
/// offset) · scale for code 0 … 2^bitwidth − 1, from min to max. Weights have a grid each, or one per output
/// channel. Throws Error where weights are quantized in groups.
ExportSummary export_encodings(const model::Model& model, const Quantization& quantization,
                               int64_t max_positions, const std::string& version,
                               const std::filesystem::path& folder);

/// Throws Error naming the first operation of the model that an exported graph has no form for.
void require_graph_form(const model::ModelConfig& config);

}  // namespace qeval::quant
