#pragma once

#include <filesystem>
#include <string>

#include "model/weights.h"
#include "quant/arithmetic/fake_arithmetic.h"

namespace qeval::quant {

/// Writes the encodings of a quantized model (export.h). Precondition: no dynamic points. Throws Error naming
/// a weight that is quantized in groups.
void write_encodings(const model::Model& model, const Quantization& quantization, const std::string& version,
                     const std::filesystem::path& file);

}  // namespace qeval::quant
