#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint/tensor.h"

namespace qeval::model {

/// A tensor to be written, handed over a few rows at a time: as numbers, or as the elements themselves.
struct TensorSource {
  std::string name;
  std::vector<int64_t> shape;  ///< [rows, cols] or [size]
  /// Fills `out` with rows [first, first + count) in float32; a vector is one row.
  std::function<void(int64_t first, int64_t count, float* out)> rows{};
  /// What the numbers are stored as instead of the file's type: f32, f16 or bf16. Of elements, their type.
  std::optional<DType> dtype{};
  /// Where given, instead of `rows`: fills `out` with the elements of those rows.
  std::function<void(int64_t first, int64_t count, std::byte* out)> elements{};
};

/// Writes one safetensors file atomically: tensors in the order given, those of wider elements first, so that
/// all are aligned; numbers as `dtype` (f32, f16 or bf16, rounded half to even) where they have no type of
/// their own. Never holds more than a few rows. A value that is not finite, or that float16 or bfloat16
/// cannot hold, is an Error that names the tensor; so are numbers of any other type.
void write_safetensors(const std::filesystem::path& file, std::span<const TensorSource> tensors, DType dtype);

}  // namespace qeval::model
