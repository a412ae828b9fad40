#include "model/checkpoint/checkpoint.h"

#include <algorithm>

#include "base/error.h"
#include "base/memory.h"

namespace qeval::model {

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto it = index_.find(std::string(name));
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const TensorView& Checkpoint::require(std::string_view name) const {
  const TensorView* tensor = find(name);
  if (tensor == nullptr) {
    const auto listed = listed_only_.find(name);
    fail("{}: tensor {} is missing", (listed == listed_only_.end() ? path_ : listed->second).string(),
         printable(name));
  }
  return *tensor;
}

void Checkpoint::add(TensorView tensor) {
  if (!index_.emplace(tensor.name, tensors_.size()).second) {
    fail("{}: tensor {} occurs twice", path_.string(), printable(tensor.name));
  }
  const DTypeInfo& type = info(tensor.dtype);
  const auto alignment = static_cast<uintptr_t>(type.block_size == 1 ? type.block_bytes : 1);
  if (reinterpret_cast<uintptr_t>(tensor.bytes.data()) % alignment != 0) {
    require_memory(std::ssize(tensor.bytes), path_.string());
    const auto& copy = aligned_copies_.emplace_back(std::make_unique<std::byte[]>(tensor.bytes.size()));
    std::copy(tensor.bytes.begin(), tensor.bytes.end(), copy.get());
    tensor.bytes = {copy.get(), tensor.bytes.size()};
  }
  tensors_.push_back(std::move(tensor));
}

void Checkpoint::add_listed_only(std::string name, std::filesystem::path file) {
  listed_only_.emplace(std::move(name), std::move(file));
}

void Checkpoint::add_metadata(std::string key, std::string text) {
  metadata_.emplace(std::move(key), std::move(text));
}

}  // namespace qeval::model
