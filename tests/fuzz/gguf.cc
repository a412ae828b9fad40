#include "model/checkpoint/gguf.h"

#include "model/tokenizer/tokenizer.h"
#include "model/weights.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/tensors.h"

namespace qeval::fuzz {

namespace {

void read(const std::filesystem::path& file) {
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

}  // namespace

/// A file; what is divided by a line "%%%" is two parts of one model, too.
void gguf(Input input) {
  read(scratch().write("x.gguf", text_of(input)));
  const Parts parts = split(text_of(input));
  if (parts.second.empty()) return;
  scratch().write("x-00001-of-00002.gguf", parts.first);
  read(scratch().write("x-00002-of-00002.gguf", parts.second));
}

}  // namespace qeval::fuzz
