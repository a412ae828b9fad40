// A tokenizer.json whose pieces are characters: SentencePiece models as Hugging Face stores them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/tokenizer_fixtures.h"

namespace qeval::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

/// <unk> <s> </s>, 256 bytes (3 … 258), then ▁ a b ▁a ab (259 … 263).
json character_vocabulary() {
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = 3 + byte;
  int id = 259;
  for (const char* token : {"▁", "a", "b", "▁a", "ab"}) vocab[token] = id++;
  return vocab;
}

json character_bpe() {
  return {{"added_tokens", {{{"id", 1}, {"content", "<s>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", character_vocabulary()},
            {"merges", {"▁ a", "a b"}}}}};
}

std::vector<int32_t> encode(const json& file, std::string_view text) {
  const TemporaryFolder folder;
  return load_tokenizer(folder.write_json("tokenizer.json", file))->encode(text);
}

TEST(CharacterBpe, SpacesAreMarksAndUnknownCharactersBytes) {
  json file = character_bpe();
  EXPECT_THAT(encode(file, "ab a"), ElementsAre(262, 261, 262));
  EXPECT_THAT(encode(file, " a"), ElementsAre(262));             // no second space before a space
  EXPECT_THAT(encode(file, "a<s>a"), ElementsAre(262, 1, 260));  // "first": not behind an added token
  EXPECT_THAT(encode(file, "aé"), ElementsAre(262, 3 + 0xC3, 3 + 0xA9));
  file["pre_tokenizer"]["prepend_scheme"] = "always";
  EXPECT_THAT(encode(file, "a<s>a"), ElementsAre(262, 1, 262));
  file["pre_tokenizer"] = nullptr;
  const json prepend = {{"type", "Prepend"}, {"prepend", "▁"}};
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {prepend, replace}}};
  EXPECT_THAT(encode(file, " a<s>a"), ElementsAre(259, 262, 1, 262));

  const TemporaryFolder folder;
  const auto tokenizer = load_tokenizer(folder.write_json("tokenizer.json", character_bpe()));
  EXPECT_EQ(tokenizer->kind(), "BPE");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("ab aé")), "ab aé");
}

TEST(CharacterBpe, UnknownTokensStandForWhatHasNone) {
  json file = character_bpe();
  file["model"]["byte_fallback"] = false;
  EXPECT_THAT(encode(file, "aéüa"), ElementsAre(262, 0, 260));
  file["model"]["fuse_unk"] = false;
  EXPECT_THAT(encode(file, "aéüa"), ElementsAre(262, 0, 0, 260));
  file["model"]["unk_token"] = nullptr;
  EXPECT_THAT(encode(file, "aéüa"), ElementsAre(262, 260));
}

TEST(Unigram, TakesTheLikeliestSegmentation) {
  json file = character_bpe();
  file["model"] = {
      {"type", "Unigram"},
      {"unk_id", 0},
      {"byte_fallback", false},
      {"vocab", json::array({json::array({"<unk>", 0}), json::array({"<s>", 0}), json::array({"▁", -3}),
                             json::array({"a", -2}), json::array({"b", -2}), json::array({"▁a", -4}),
                             json::array({"ab", -3.5})})}};
  EXPECT_THAT(encode(file, "ab"), ElementsAre(5, 4));  // -6, where ▁ and ab are -6.5
  file["model"]["vocab"][6][1] = -2.5;
  EXPECT_THAT(encode(file, "ab"), ElementsAre(2, 6));
  EXPECT_THAT(encode(file, "éüa"), ElementsAre(2, 0, 3));  // neighbours are one unknown token
}

// transformers loads some folders by a class that takes tokens and merges from the file, and nothing else.
TEST(TokenizerClass, AFolderIsReadAsItsClassHasIt) {
  const TemporaryFolder folder;
  json file = character_bpe();
  file["pre_tokenizer"] = nullptr;  // no dummy space by the file alone
  folder.write_json("tokenizer.json", file);
  const auto ids = [&](const json& config, const char* type) {
    folder.write_json("tokenizer_config.json", config);
    folder.write_json("config.json", json{{"model_type", type}});
    return load_tokenizer(folder.path())->encode("a</s>a");
  };
  const json special = {{"eos_token", "</s>"}};
  json llama = special;
  llama["tokenizer_class"] = "LlamaTokenizerFast";
  EXPECT_THAT(ids(special, "llama"), ElementsAre(260, 2, 260));
  EXPECT_THAT(ids(llama, "llama"), ElementsAre(262, 2, 260));
  EXPECT_THAT(ids(llama, "mistral"), ElementsAre(260, 2, 260));  // there the general class reads the file
  json moved = llama;
  moved["source_model_type"] = "mistral";  // as a converted folder has it
  EXPECT_THAT(ids(moved, "hfmodel"), ElementsAre(260, 2, 260));
  llama["legacy"] = true;
  EXPECT_THAT(ids(llama, "llama"), ElementsAre(262, 2, 262));
  llama["add_prefix_space"] = false;
  EXPECT_THAT(ids(llama, "llama"), ElementsAre(260, 2, 260));
}

TEST(LoadTokenizer, TokensBeyondTheEmbeddingsAreErrorsOfTheirTexts) {
  const TemporaryFolder folder;
  json file = character_bpe();
  file["added_tokens"].push_back({{"id", 264}, {"content", "[PAD]"}, {"special", true}});
  folder.write_json("tokenizer.json", file);
  folder.write_json("tokenizer_config.json", json{{"bos_token", "<s>"}, {"eos_token", "[PAD]"}});
  const auto tokenizer = load_tokenizer(folder.path(), 264);
  EXPECT_THAT(tokenizer->encode("ab"), ElementsAre(262, 261));
  EXPECT_EQ(tokenizer->vocab_size(), 264);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_FALSE(tokenizer->eos_id());
  EXPECT_THAT(tokenizer->warnings(), ElementsAre(HasSubstr("EOS is token 264")));
  EXPECT_THAT(message_of([&] { tokenizer->encode("a[PAD]"); }),
              testing::AllOf(HasSubstr("[PAD]"), HasSubstr("264 embeddings")));
  EXPECT_THAT(load_tokenizer(folder.path(), 265)->encode("[PAD]"), ElementsAre(264));
}

}  // namespace
}  // namespace qeval::model
