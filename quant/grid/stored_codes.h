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

/// `count` codes below 2^bits as a dense stream of bits, low bits first, the last word filled up with zeros.
void pack_stream(const uint8_t* codes, int64_t count, int bits, uint32_t* words);

/// The codes as a weight that lies in memory as in a checkpoint: is_stored_as(its spec), so that
/// quantized_weight() gives them back. Precondition: at most 8 bits, grids of weight_grids().
model::StoredWeight store_codes(const QuantizedMatrix& matrix);

}  // namespace qeval::quant
