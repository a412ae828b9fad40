#pragma once

#include <vector>

#include "model/checkpoint/checkpoint.h"

namespace qeval::fuzz {

/// Decodes every tensor, a part at a time: the sanitizers watch that nothing leaves the file.
inline void read_tensors(const model::Checkpoint& checkpoint) {
  constexpr int64_t kPart = 4096;  // whole blocks of every type
  std::vector<float> values(kPart);
  for (const model::TensorView& tensor : checkpoint.tensors()) {
    const model::DTypeInfo& type = model::info(tensor.dtype);
    const auto count = static_cast<int64_t>(tensor.bytes.size()) / type.block_bytes * type.block_size;
    if (count != tensor.element_count()) __builtin_trap();
    for (int64_t first = 0; type.is_float && first < count; first += kPart) {
      const std::byte* source = tensor.bytes.data() + first / type.block_size * type.block_bytes;
      model::decode(tensor.dtype, source, std::min(kPart, count - first), values.data());
    }
  }
}

}  // namespace qeval::fuzz
