#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint/tensor.h"

namespace qeval::model {

/// A tensor as a PyTorch pickle describes it: a strided window on a storage, whose bytes are a file of their
/// own.
struct PickledTensor {
  std::string name;
  DType dtype = DType::f32;
  std::string storage_key;  ///< the storage is the archive's entry "data/KEY"
  int64_t storage_elements = 0;
  int64_t offset = 0;                  ///< first element within the storage
  std::vector<int64_t> shape, stride;  ///< in elements, outermost dimension first
};

/// Interprets the `data.pkl` of a state dict: a dict from names to tensors. Nothing is ever executed: pickle
/// protocol 2 is a stack language, and only the opcodes and globals that build such a dict have a meaning
/// here. Any other opcode or global (`os.system` …) is an Error that begins with `where` and names it.
std::vector<PickledTensor> read_tensor_dict(std::span<const std::byte> pickle, const std::string& where);

}  // namespace qeval::model
