#include "model/checkpoint/checkpoint.h"

#include "base/error.h"

namespace qeval::model {

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto it = index_.find(std::string(name));
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const TensorView& Checkpoint::require(std::string_view name) const {
  const TensorView* tensor = find(name);
  if (tensor == nullptr) fail("{}: tensor {} is missing", path_.string(), name);
  return *tensor;
}

void Checkpoint::add(TensorView tensor) {
  if (!index_.emplace(tensor.name, tensors_.size()).second) {
    fail("{}: tensor {} occurs twice", path_.string(), printable(tensor.name));
  }
  tensors_.push_back(std::move(tensor));
}

}  // namespace qeval::model
