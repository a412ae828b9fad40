#include "model/tokenizer/sentencepiece_tokenizer.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {

void sentencepiece(Input input) {
  const Parts parts = split(text_of(input));
  const std::string_view model = parts.first, config = parts.second;
  if (model.starts_with("GGUF")) {
    const auto file = scratch().write("x.gguf", text_of(input));
    accepted(
        [&] { encode_and_decode(*model::load_sentencepiece_gguf(model::GgufFile(file), file.string())); });
    return;
  }
  const auto file = scratch().write("sentencepiece/tokenizer.model", model);
  if (config.empty()) {
    accepted([&] { encode_and_decode(*model::load_sentencepiece(file)); });
    return;
  }
  scratch().write("sentencepiece/tokenizer_config.json", config);
  accepted([&] { encode_and_decode(*model::load_tokenizer(file.parent_path())); });
}

}  // namespace qeval::fuzz
