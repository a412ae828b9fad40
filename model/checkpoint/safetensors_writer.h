#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint/tensor.h"

namespace qeval::model {

/// A tensor to be written, handed over a few rows at a time.
struct TensorSource {
  std::string name;
  std::vector<int64_t> shape;  ///< [rows, cols] or [size]
  /// Fills `out` with rows [first, first + count) in float32; a vector is one row.
  std::function<void(int64_t first, int64_t count, float* out)> rows;
};

/// Writes one safetensors file atomically: tensors in the order given, as `dtype` (f32, f16 or bf16, rounded
/// half to even). Never holds more than a few rows. A value that is not finite, or that float16 or bfloat16
/// cannot hold, is an Error that names the tensor; so is any other dtype.
void write_safetensors(const std::filesystem::path& file, std::span<const TensorSource> tensors, DType dtype);

}  // namespace qeval::model
