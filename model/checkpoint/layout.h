#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "model/checkpoint/tensor.h"

namespace qeval::model {

/// Bytes that a dense tensor takes; empty where a dimension is negative, the last one is not a whole number
/// of blocks, or a product exceeds 2^62.
std::optional<int64_t> byte_count(DType dtype, std::span<const int64_t> shape);

/// "[2, 3]", for messages.
std::string shape_text(std::span<const int64_t> shape);

}  // namespace qeval::model
