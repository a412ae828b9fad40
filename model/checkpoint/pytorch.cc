#include "base/error.h"
#include "model/checkpoint/checkpoint.h"

namespace qeval::model {

std::unique_ptr<Checkpoint> open_pytorch(const std::filesystem::path& file) {
  fail("{}: PyTorch files cannot be read yet", file.string());
}

}  // namespace qeval::model
