#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/pickle.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/tensors.h"

namespace qeval::fuzz {

void pytorch(Input input) {
  if (!text_of(input).starts_with("PK")) {
    accepted([&] { (void)model::read_tensor_dict(input, "pickle"); });
    return;
  }
  const auto file = scratch().write("x.bin", text_of(input));
  accepted([&] { read_tensors(*model::open_pytorch(file)); });
}

}  // namespace qeval::fuzz
