#include "tests/model/byte_model.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/model/fixtures.h"
#include "tests/model/tokenizer_fixtures.h"

namespace qeval::test {

namespace fixtures = model::fixtures;

std::string byte_tokenizer() {
  return model::tiny_bpe({}, {{{"id", 256},
                               {"content", "<end>"},
                               {"special", true},
                               {"normalized", false},
                               {"single_word", false},
                               {"lstrip", false},
                               {"rstrip", false}}})
      .dump();
}

std::string tiny_weights() {
  std::vector<fixtures::Tensor> tensors = fixtures::tiny_model();
  constexpr auto kSize = static_cast<size_t>(kTokens * fixtures::kTinyHidden);
  uint32_t seed = 100;
  for (fixtures::Tensor& tensor : tensors) {
    if (tensor.shape.front() == fixtures::kTinyVocab) {
      tensor = fixtures::f32_tensor(tensor.name, {kTokens, fixtures::kTinyHidden},
                                    fixtures::random_values(kSize, seed++));
    }
  }
  return fixtures::safetensors(tensors);
}

std::string tiny_model_config() {
  nlohmann::json config = nlohmann::json::parse(fixtures::tiny_config());
  config["vocab_size"] = kTokens;
  return config.dump();
}

void write_byte_model(const std::filesystem::path& folder) {
  qeval::create_directories(folder);
  write_file_atomically(folder / "config.json", tiny_model_config());
  write_file_atomically(folder / "model.safetensors", tiny_weights());
  write_file_atomically(folder / "tokenizer.json", byte_tokenizer());
  write_file_atomically(folder / "tokenizer_config.json", R"({"eos_token": "<end>"})");
}

}  // namespace qeval::test
