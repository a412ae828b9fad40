#include "model/checkpoint/gguf.h"

#include "model/tokenizer/tokenizer.h"
#include "model/weights.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/tensors.h"

namespace qeval::fuzz {

void gguf(Input input) {
  const auto file = scratch().write("x.gguf", text_of(input));
  const bool readable = accepted([&] {
    const model::GgufFile opened(file);
    read_tensors(opened);
    const auto vocabulary = scratch().write("vocabulary.gguf", opened.without_tensors());
    if (!accepted([&] { model::GgufFile{vocabulary}; })) defect("the metadata alone cannot be read", "");
  });
  if (!readable) return;
  accepted([&] { model::load_model(file); });
  accepted([&] { encode_and_decode(*model::load_tokenizer(file)); });
}

}  // namespace qeval::fuzz
