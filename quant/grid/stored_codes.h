#pragma once

#include <string>

#include "model/weights.h"
#include "quant/grid/quantized_matrix.h"

namespace qeval::quant {

/// "8-bit asymmetric", "4-bit symmetric per channel in groups of 64, dynamic"; "float".
std::string describe(const QuantSpec& spec);

/// Whether a matrix lies in its checkpoint as codes on the grids that `spec` asks for.
bool is_stored_as(const model::Matrix& matrix, const QuantSpec& spec);

/// A weight as codes: as they are stored where is_stored_as(), else as quantize_matrix() makes them.
QuantizedMatrix quantized_weight(const model::Matrix& matrix, const QuantSpec& spec);

}  // namespace qeval::quant
