#include "cli_fixture.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/tokenizer/byte_level.h"

namespace qeval::test {

namespace fixtures = model::fixtures;

void expect_one_line(const Outcome& outcome, int status, const std::string& part) {
  EXPECT_EQ(outcome.status, status);
  EXPECT_THAT(outcome.error, testing::AllOf(testing::StartsWith("qeval: "), testing::EndsWith("\n"),
                                            testing::HasSubstr(part)));
  EXPECT_EQ(std::ranges::count(outcome.error, '\n'), 1) << outcome.error;
}

void expect_success(const Outcome& outcome) {
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.error, testing::IsEmpty());
}

std::string byte_tokenizer() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    vocab[model::byte_level_of_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  }
  const nlohmann::json end = {{"id", 256},           {"content", "<end>"},   {"special", true},
                              {"normalized", false}, {"single_word", false}, {"lstrip", false},
                              {"rstrip", false}};
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", {end}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"model",
       {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  return tokenizer.dump();
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

Cli::Cli() {
  write("model/config.json", tiny_model_config());
  write("model/model.safetensors", tiny_weights());
  write("model/tokenizer.json", byte_tokenizer());
  write("model/tokenizer_config.json", R"({"eos_token": "<end>"})");
  write("data/piqa/validation.jsonl",
        R"({"goal": "Cool the tea", "sol1": "Wait.", "sol2": "Boil it again.", "label": 0})"
        "\n"
        R"({"goal": "Dry a cup", "sol1": "Fill it.", "sol2": "Use a towel.", "label": 1})"
        "\n");
}

Outcome Cli::run(const std::vector<std::string>& arguments, std::string_view input) const {
  return run_qeval(folder_.path(), arguments, input);
}

Outcome Cli::eval(const std::vector<std::string>& arguments) const {
  std::vector<std::string> all{"eval", "-m", path("model"), "-d", path("data")};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return run(all);
}

void Cli::write(std::string_view name, std::string_view content) const {
  const std::filesystem::path file = path(name);
  qeval::create_directories(file.parent_path());
  write_file_atomically(file, content);
}

std::string Cli::read(std::string_view name) const {
  return read_file(path(name));
}

}  // namespace qeval::test
