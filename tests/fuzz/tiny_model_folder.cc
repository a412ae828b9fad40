#include "tests/fuzz/tiny_model_folder.h"

#include <nlohmann/json.hpp>

#include "model/tokenizer/byte_level.h"
#include "tests/fuzz/support.h"
#include "tests/model/fixtures.h"

namespace qeval::fuzz {
namespace {

constexpr int64_t kTokens = 257;

std::string byte_tokenizer() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte)
    vocab[model::byte_level_of_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  const nlohmann::json end = {{"id", 256}, {"content", "<end>"}, {"special", true}};
  const nlohmann::json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  const nlohmann::json model = {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}};
  return nlohmann::json{{"added_tokens", {end}}, {"pre_tokenizer", bytes}, {"model", model}}.dump();
}

}  // namespace

const std::filesystem::path& tiny_model_folder() {
  namespace fixtures = model::fixtures;
  static const std::filesystem::path folder = [] {
    auto config = nlohmann::json::parse(fixtures::tiny_config());
    config["vocab_size"] = kTokens;
    std::vector<fixtures::Tensor> tensors = fixtures::tiny_model();
    for (fixtures::Tensor& tensor : tensors) {
      if (tensor.shape.front() != fixtures::kTinyVocab) continue;
      constexpr auto kSize = static_cast<size_t>(kTokens * fixtures::kTinyHidden);
      tensor = fixtures::f32_tensor(tensor.name, {kTokens, fixtures::kTinyHidden},
                                    fixtures::random_values(kSize, 1));
    }
    scratch().write("model/config.json", config.dump());
    scratch().write("model/model.safetensors", fixtures::safetensors(tensors));
    scratch().write("model/tokenizer.json", byte_tokenizer());
    scratch().write("model/tokenizer_config.json", R"({"eos_token": "<end>"})");
    return scratch() / "model";
  }();
  return folder;
}

}  // namespace qeval::fuzz
