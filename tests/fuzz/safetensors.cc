#include "model/checkpoint/checkpoint.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/tensors.h"

namespace qeval::fuzz {

void safetensors(Input input) {
  const auto [first, second] = split(text_of(input));
  if (second.empty()) {
    const auto file = scratch().write("x.safetensors", first);
    accepted([&] { read_tensors(*model::open_safetensors(file)); });
    return;
  }
  scratch().write("sharded/model.safetensors.index.json", first);
  scratch().write("sharded/a.safetensors", second);
  accepted([&] { read_tensors(*model::open_directory(scratch() / "sharded")); });
}

}  // namespace qeval::fuzz
