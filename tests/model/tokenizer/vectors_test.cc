// Ids that other implementations gave for the same vocabularies: every line must agree.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/reference_data.h"
#include "tests/temporary_folder.h"

namespace qeval::model {
namespace {

struct Golden {
  std::filesystem::path folder;
  const char *tokenizer, *expected;  // below the folder
  bool round_trip;                   // every id of the text's bytes exists, so decoding gives the text back
};

void PrintTo(const Golden& golden, std::ostream* out) {
  *out << golden.tokenizer;
}

class ExpectedLines : public testing::TestWithParam<Golden> {};

TEST_P(ExpectedLines, HaveTheSameIds) {
  const Golden& golden = GetParam();
  if (!std::filesystem::exists(golden.folder)) GTEST_SKIP() << "no " << golden.folder;
  const auto tokenizer = load_tokenizer(golden.folder / golden.tokenizer);
  std::ifstream lines(golden.folder / golden.expected);
  ASSERT_TRUE(lines) << golden.expected;
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto json = nlohmann::json::parse(line);
    const auto text = json.at("text").get<std::string>();
    const auto ids = json.at("ids").get<std::vector<int32_t>>();
    ASSERT_EQ(tokenizer->encode(text), ids) << "line " << count + 1 << ": " << text;
    if (golden.round_trip) {
      ASSERT_EQ(tokenizer->decode(ids), text) << "line " << count + 1;
    }
  }
  EXPECT_GT(count, 400U);
}

// gpt-neox: NFC composes "é" from two characters, so that the ids cannot give them back.
std::vector<Golden> vocabularies_without_conditions(const std::filesystem::path& folder) {
  return {{folder, "tokenizers/smollm2-tokenizer.json", "tokenizers/smollm2-expected.jsonl", true},
          {folder, "tokenizers/gpt-neox-tokenizer.json", "tokenizers/gpt-neox-expected.jsonl", false},
          {folder, "models/stories260K/tokenizer.model", "tokenizers/stories260K-expected.jsonl", true}};
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, ExpectedLines,
                         testing::ValuesIn(vocabularies_without_conditions(test::goldens())));
INSTANTIATE_TEST_SUITE_P(OtherTexts, ExpectedLines,
                         testing::ValuesIn(vocabularies_without_conditions(test::shared_data(""))));
INSTANTIATE_TEST_SUITE_P(Llama2, ExpectedLines,
                         testing::Values(Golden{test::shared_data(""), "tokenizers/llama2-tokenizer.model",
                                                "tokenizers/llama2-expected.jsonl", true},
                                         // The same vocabulary, rebuilt from GGUF metadata.
                                         Golden{test::shared_data(""), "tokenizers/ggml-vocab-llama-spm.gguf",
                                                "tokenizers/llama2-expected.jsonl", true}));

// A folder's tokenizer.model is what transformers makes of it, by the settings beside it.
TEST(TokenizerFiles, SentencePieceFoldersHaveTheIdsOfTransformers) {
  const test::TemporaryFolder folder;
  folder.write("tokenizer.model", read_file(test::goldens() / "models/stories260K/tokenizer.model"));
  folder.write_json("config.json", nlohmann::json{{"model_type", "llama"}});
  std::ifstream lines(test::goldens() / "tokenizers/stories260K-folder-expected.jsonl");
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto json = nlohmann::json::parse(line);
    const auto& config = json.at("config");
    if (!config.is_null()) folder.write_json("tokenizer_config.json", config);
    const auto tokenizer = load_tokenizer(folder.path());
    EXPECT_GT(json.at("texts").size(), 100U);
    for (size_t i = 0; i < json.at("texts").size(); ++i) {
      const auto text = json.at("texts")[i].get<std::string>();
      EXPECT_EQ(tokenizer->encode(text), json.at("ids")[i].get<std::vector<int32_t>>())
          << config << ": '" << text << "'";
    }
  }
  EXPECT_EQ(count, 10U);
}

class VocabularyVectors : public testing::TestWithParam<Golden> {};

TEST_P(VocabularyVectors, HaveTheSameIds) {
  const Golden& golden = GetParam();
  if (!std::filesystem::exists(golden.folder)) GTEST_SKIP() << "no " << golden.folder;
  const std::string file = golden.folder / golden.tokenizer;
  const auto tokenizer = load_tokenizer(file);
  const std::string texts = read_file(file + ".inp");
  std::ifstream answers(golden.folder / golden.expected);
  const std::string separator = "\n__ggml_vocab_test__\n";
  size_t count = 0;
  for (size_t begin = 0, end = 0; (end = texts.find(separator, begin)) != std::string::npos;
       begin = end + separator.size(), ++count) {
    const std::string text = texts.substr(begin, end - begin);
    std::string line;
    ASSERT_TRUE(std::getline(answers, line)) << "text " << count;
    std::istringstream numbers(line);
    std::vector<int32_t> ids;
    for (int32_t id = 0; numbers >> id;) ids.push_back(id);
    EXPECT_EQ(tokenizer->encode(text), ids) << "text " << count << ": '" << text << "'";
    EXPECT_EQ(tokenizer->decode(ids), text) << "text " << count;
  }
  EXPECT_GT(count, 40U);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, VocabularyVectors,
                         testing::Values(Golden{test::goldens(), "tokenizers/ggml-vocab-gpt-2.gguf",
                                                "tokenizers/ggml-vocab-gpt-2.gguf.out", true}));
INSTANTIATE_TEST_SUITE_P(LlamaAndQwen, VocabularyVectors,
                         testing::Values(Golden{test::shared_data(""), "tokenizers/ggml-vocab-llama-bpe.gguf",
                                                "tokenizers/ggml-vocab-llama-bpe.gguf.out", true},
                                         Golden{test::shared_data(""), "tokenizers/ggml-vocab-llama-spm.gguf",
                                                "tokenizers/ggml-vocab-llama-spm.gguf.out", true},
                                         Golden{test::shared_data(""), "tokenizers/ggml-vocab-qwen2.gguf",
                                                "tokenizers/ggml-vocab-qwen2.gguf.out", true}));

/// A real model file, named by the environment: its tokenizer must give the ids that llama.cpp gives.
TEST(TokenizerFiles, Smollm2ModelHasTheIdsOfLlamaCpp) {
  const char* file = std::getenv("QEVAL_SMOLLM2_GGUF");
  if (file == nullptr) GTEST_SKIP() << "QEVAL_SMOLLM2_GGUF does not name a SmolLM2 GGUF file";
  const auto tokenizer = load_tokenizer(file);
  EXPECT_FALSE(tokenizer->adds_bos());
  std::ifstream lines(test::goldens() / "tokenizers/smollm2-gguf-expected.jsonl");
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto json = nlohmann::json::parse(line);
    const auto text = json.at("text").get<std::string>();
    ASSERT_EQ(tokenizer->encode(text), json.at("ids").get<std::vector<int32_t>>()) << text;
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  EXPECT_GT(count, 400U);
}

TEST(TokenizerFiles, SayWhatIsPutBeforeAText) {
  EXPECT_FALSE(load_tokenizer(test::goldens() / "tokenizers/ggml-vocab-gpt-2.gguf")->adds_bos());
  const auto stories = load_tokenizer(test::goldens() / "models/stories260K");
  EXPECT_TRUE(stories->adds_bos());
  EXPECT_EQ(stories->bos_id(), 1);
  EXPECT_EQ(stories->vocab_size(), 512);
}

TEST(TokenizerFiles, SayWhatIsPutBeforeATextOfLlamaAndQwen) {
  const std::filesystem::path tokenizers = test::shared_data("tokenizers");
  if (!std::filesystem::exists(tokenizers)) GTEST_SKIP() << "no " << tokenizers;
  const auto llama3 = load_tokenizer(tokenizers / "ggml-vocab-llama-bpe.gguf");
  EXPECT_TRUE(llama3->adds_bos());
  EXPECT_EQ(llama3->bos_id(), 128000);
  EXPECT_EQ(llama3->eos_id(), 128001);
  EXPECT_EQ(llama3->encode("<|begin_of_text|>a"), (std::vector<int32_t>{128000, 64}));
  const auto llama2 = load_tokenizer(tokenizers / "ggml-vocab-llama-spm.gguf");
  EXPECT_TRUE(llama2->adds_bos());
  EXPECT_EQ(llama2->bos_id(), 1);
  EXPECT_EQ(llama2->eos_id(), 2);
  EXPECT_EQ(llama2->vocab_size(), 32000);
  EXPECT_FALSE(load_tokenizer(tokenizers / "ggml-vocab-qwen2.gguf")->adds_bos());
}

}  // namespace
}  // namespace qeval::model
