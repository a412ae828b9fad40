#include "model/tokenizer/definition.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {

void tokenizer_json(Input input) {
  const auto [tokenizer, config] = split(text_of(input));
  const auto file = scratch().write("tokenizer/tokenizer.json", tokenizer);
  if (config.empty()) {
    scratch().remove("tokenizer/tokenizer_config.json");
  } else {
    scratch().write("tokenizer/tokenizer_config.json", config);
  }
  accepted([&] {
    encode_and_decode(
        *model::make_pipeline_tokenizer(model::read_tokenizer_json(file, file.parent_path()), file.string()));
  });
}

}  // namespace qeval::fuzz
