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

namespace qeval::model {
namespace {

const std::filesystem::path kShared = QEVAL_SHARED_DIR;
const std::filesystem::path kTokenizers = kShared / "tokenizers";

struct Golden {
  const char* tokenizer;  // below the shared folder
  const char* expected;
  bool round_trip;  // every id of the text's bytes exists, so decoding gives the text back
};

void PrintTo(const Golden& golden, std::ostream* out) {
  *out << golden.tokenizer;
}

class ExpectedLines : public testing::TestWithParam<Golden> {};

TEST_P(ExpectedLines, HaveTheSameIds) {
  if (!std::filesystem::exists(kTokenizers)) GTEST_SKIP() << "no reference data in " << kTokenizers;
  const auto tokenizer = load_tokenizer(kShared / GetParam().tokenizer);
  std::ifstream lines(kTokenizers / GetParam().expected);
  ASSERT_TRUE(lines) << GetParam().expected;
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto json = nlohmann::json::parse(line);
    const auto text = json.at("text").get<std::string>();
    const auto ids = json.at("ids").get<std::vector<int32_t>>();
    ASSERT_EQ(tokenizer->encode(text), ids) << "line " << count + 1 << ": " << text;
    if (GetParam().round_trip) {
      ASSERT_EQ(tokenizer->decode(ids), text) << "line " << count + 1;
    }
  }
  EXPECT_GT(count, 400U);
}

INSTANTIATE_TEST_SUITE_P(
    Tokenizers, ExpectedLines,
    testing::Values(Golden{"tokenizers/smollm2-tokenizer.json", "smollm2-expected.jsonl", true},
                    // NFC composes "é" from two characters: the ids cannot give them back.
                    Golden{"tokenizers/gpt-neox-tokenizer.json", "gpt-neox-expected.jsonl", false},
                    Golden{"tokenizers/llama2-tokenizer.model", "llama2-expected.jsonl", true},
                    // The vocabulary is Llama 2's, rebuilt from GGUF metadata.
                    Golden{"tokenizers/ggml-vocab-llama-spm.gguf", "llama2-expected.jsonl", true},
                    Golden{"models/stories260K", "stories260K-expected.jsonl", true},
                    Golden{"models/stories260K/tokenizer.model", "stories260K-expected.jsonl", true}));

class VocabularyVectors : public testing::TestWithParam<const char*> {};

TEST_P(VocabularyVectors, HaveTheSameIds) {
  if (!std::filesystem::exists(kTokenizers)) GTEST_SKIP() << "no reference data in " << kTokenizers;
  const std::string file = (kTokenizers / GetParam()).string();
  const auto tokenizer = load_tokenizer(file);
  const std::string texts = read_file(file + ".inp");
  std::ifstream answers(file + ".out");
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
                         testing::Values("ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-bpe.gguf",
                                         "ggml-vocab-llama-spm.gguf", "ggml-vocab-qwen2.gguf"));

/// A real model file, named by the environment: its tokenizer must give the ids of the tokenizer.json it came
/// from.
TEST(TokenizerFiles, Smollm2ModelHasTheIdsOfItsTokenizerJson) {
  const char* file = std::getenv("QEVAL_SMOLLM2_GGUF");
  if (file == nullptr) GTEST_SKIP() << "QEVAL_SMOLLM2_GGUF does not name a SmolLM2 GGUF file";
  const auto tokenizer = load_tokenizer(file);
  EXPECT_FALSE(tokenizer->adds_bos());
  std::ifstream lines(kTokenizers / "smollm2-expected.jsonl");
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
  if (!std::filesystem::exists(kTokenizers)) GTEST_SKIP() << "no reference data in " << kTokenizers;
  const auto llama3 = load_tokenizer(kTokenizers / "ggml-vocab-llama-bpe.gguf");
  EXPECT_TRUE(llama3->adds_bos());
  EXPECT_EQ(llama3->bos_id(), 128000);
  EXPECT_EQ(llama3->eos_id(), 128001);
  EXPECT_EQ(llama3->encode("<|begin_of_text|>a"), (std::vector<int32_t>{128000, 64}));
  const auto llama2 = load_tokenizer(kTokenizers / "ggml-vocab-llama-spm.gguf");
  EXPECT_TRUE(llama2->adds_bos());
  EXPECT_EQ(llama2->bos_id(), 1);
  EXPECT_EQ(llama2->eos_id(), 2);
  EXPECT_EQ(llama2->vocab_size(), 32000);
  EXPECT_FALSE(load_tokenizer(kTokenizers / "ggml-vocab-qwen2.gguf")->adds_bos());
  const auto stories = load_tokenizer(kShared / "models" / "stories260K");
  EXPECT_TRUE(stories->adds_bos());
  EXPECT_EQ(stories->bos_id(), 1);
  EXPECT_EQ(stories->vocab_size(), 512);
}

}  // namespace
}  // namespace qeval::model
