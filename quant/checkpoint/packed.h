#pragma once

#include <filesystem>

#include "model/weights.h"
#include "quant/grid/qcfg.h"

namespace qeval::quant {

/// Writes model.safetensors and config.json of a quantized model as codes, in the layout of
/// compressed-tensors: each weight of a linear map or the head that `qcfg` gives 8 bits or fewer as the
/// codes, F32 scales and zero points that quantize_matrix() makes of it, pack-quantized, or int-quantized
/// where it has 8 bits and activations are quantized too. Other numbers are stored in the smallest float type
/// that holds them exactly; an embedding of GGUF blocks of scaled integers as int8 codes with the blocks'
/// scales. Tensors have their architecture's own names (model::published_layout) where that is possible, else
/// the unified ones. Zero points that the layout has no room for are I64 there, which only qeval reads.
void write_packed(const model::Model& model, const QuantConfig& qcfg, const std::filesystem::path& folder);

/// The layout of the paper's code, with what it has no place for: float32 weights by unified names, and
/// beside each that the model holds as codes (EditableModel::set_codes) these codes, pack-quantized, since
/// its floats need not round to them. What they are stands in config.json under `weight_codes`, as
/// `quantization_config` would say it: other programs read the floats.
void write_floats_and_codes(const model::Model& model, const QuantConfig& qcfg,
                            const std::filesystem::path& folder);

}  // namespace qeval::quant
