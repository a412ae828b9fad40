#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include "tests/model/tokenizer_fixtures.h"

namespace qeval::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// 259 "▁", 260 "a", 261 "b", 262 "▁a", 263 "ab", 264 "▁ab", 265 "▁▁".
const std::vector<std::string> kWords = {"▁", "a", "b", "▁a", "ab", "▁ab", "▁▁"};

std::unique_ptr<Tokenizer> load(const SentencePieceModel& model) {
  const TemporaryFolder folder;
  return load_tokenizer(folder.write("tokenizer.model", serialize_sentencepiece(model)));
}

TEST(SentencePieceTokenizer, EncodesAndDecodes) {
  const auto tokenizer = load(tiny_sentencepiece(kWords));
  EXPECT_THAT(tokenizer->encode("ab b"), ElementsAre(264, 259, 261));
  EXPECT_THAT(tokenizer->encode("é"), ElementsAre(259, 3 + 0xC3, 3 + 0xA9));
  EXPECT_TRUE(tokenizer->encode("").empty());
  for (const std::string& text : {std::string("ab b"), std::string("  a  b "), std::string("é\n世😁"),
                                  std::string("x"), std::string(" "), std::string("a\0b", 3)}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{3 + 0xC3}), "\xC3");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{1, 262, 2}), "<s>a</s>");
  EXPECT_EQ(tokenizer->kind(), "SentencePiece");
  EXPECT_EQ(tokenizer->vocab_size(), 266);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_THAT(message_of([&] { tokenizer->encode("ab\xFF"); }), HasSubstr("byte 2"));
  EXPECT_THAT(message_of([&] { tokenizer->decode(std::vector<int32_t>{266}); }), HasSubstr("266"));
}

// Found by fuzzing: the library throws an exception of its own for a piece with a zero byte in a unigram
// model, which ended the program.
TEST(SentencePieceTokenizer, WhatTheLibraryThrowsIsAnErrorToo) {
  const TemporaryFolder folder;
  SentencePieceModel model = tiny_sentencepiece(kWords);
  model.pieces.push_back({std::string(2, '\0'), 0, 1});
  const std::string unigram("\x12\x02\x18\x01",
                            4);  // TrainerSpec {model_type: UNIGRAM}, which merges with what is there
  const auto file = folder.write("tokenizer.model", serialize_sentencepiece(model) + unigram);
  EXPECT_THAT(message_of([&] { load_tokenizer(file); }), HasSubstr("library refuses the model"));
}

TEST(SentencePieceTokenizer, WithoutDummyPrefix) {
  SentencePieceModel model = tiny_sentencepiece(kWords);
  model.add_dummy_prefix = false;
  const auto tokenizer = load(model);
  EXPECT_THAT(tokenizer->encode("ab a"), ElementsAre(263, 262));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{262, 262}), " a a");
  EXPECT_NE(tokenizer->hash(), load(tiny_sentencepiece(kWords))->hash());
}

TEST(SentencePieceTokenizer, ControlTokensInTextAreTextAndUserDefinedOnesAreTokens) {
  SentencePieceModel model = tiny_sentencepiece(kWords);
  model.pieces.push_back({"bab", 0, 4});
  const auto tokenizer = load(model);
  EXPECT_THAT(tokenizer->encode("abab"), ElementsAre(262, 266));
  EXPECT_GT(tokenizer->encode("<s>").size(), 3U);
}

// A chat template spells them out: the prompt of a TinyLlama from GGUF had "</s>" as letters.
TEST(SentencePieceTokenizer, ControlTokensInPromptsAreTokens) {
  const auto tokenizer = load(tiny_sentencepiece(kWords));
  EXPECT_THAT(tokenizer->encode_prompt("a</s>a<s>"), ElementsAre(262, 2, 262, 1));
  EXPECT_EQ(tokenizer->encode_prompt("ab b"), tokenizer->encode("ab b"));
}

TEST(SentencePieceTokenizer, AFolderThatWantsATokenBehindEveryTextIsRefused) {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", serialize_sentencepiece(tiny_sentencepiece(kWords)));
  folder.write_json("tokenizer_config.json", json{{"add_eos_token", true}});
  EXPECT_THAT(message_of([&] { load_tokenizer(folder.path()); }), HasSubstr("add_eos_token"));
}

TEST(SentencePieceTokenizer, LongTextsHaveTheLibrarysIds) {
  std::mt19937 random(11);
  for (const bool dummy_prefix : {true, false}) {
    for (const std::vector<std::string>& words :
         {kWords, std::vector<std::string>{"▁", "a", "b", "a▁", "a▁b", "▁a"}}) {
      SentencePieceModel model = tiny_sentencepiece(words);
      model.add_dummy_prefix = dummy_prefix;
      sentencepiece::SentencePieceProcessor library;
      ASSERT_TRUE(library.LoadFromSerializedProto(serialize_sentencepiece(model)).ok());
      const auto tokenizer = load(model);
      for (int round = 0; round < 20; ++round) {
        std::string text;
        while (text.size() < 3000) {
          constexpr std::array<const char*, 8> kParts = {"a", "b", " ", "  ", "▁", "é", "ab", " a"};
          text += kParts[random() % kParts.size()];
        }
        std::vector<int> expected;
        ASSERT_TRUE(library.Encode(text, &expected).ok());
        ASSERT_EQ(tokenizer->encode(text), expected);
      }
      const std::string open_end = std::string(600, 'a') + "  ";
      std::vector<int> expected;
      ASSERT_TRUE(library.Encode(open_end, &expected).ok());
      EXPECT_EQ(tokenizer->encode(open_end), expected);
    }
  }
}

TEST(SentencePieceTokenizer, FolderDecidesBosAndAddedTokens) {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", serialize_sentencepiece(tiny_sentencepiece(kWords)));
  EXPECT_FALSE(load_tokenizer(folder.path())->adds_bos());  // transformers 5 adds what it is told to
  EXPECT_EQ(load_tokenizer(folder.path())->bos_id(), 1);
  const std::string plain = load_tokenizer(folder.path())->hash();
  json config = {{"add_bos_token", false}, {"bos_token", {{"content", "</s>"}}}, {"eos_token", "<s>"}};
  folder.write_json("tokenizer_config.json", config);
  auto tokenizer = load_tokenizer(folder.path());
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->bos_id(), 2);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_NE(tokenizer->hash(), plain);

  config["added_tokens_decoder"] = {{"1", {{"content", "<s>"}, {"special", true}}},
                                    {"270", {{"content", "<x>"}}}};
  folder.write_json("tokenizer_config.json", config);
  tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->vocab_size(), 271);
  EXPECT_THAT(tokenizer->encode("a<s>a<x>"), ElementsAre(262, 1, 262, 270));
  config["legacy"] = false;
  folder.write_json("tokenizer_config.json", config);
  tokenizer = load_tokenizer(folder.path());
  EXPECT_THAT(tokenizer->encode("a<s>a a<x>"), ElementsAre(262, 1, 260, 262, 270));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{262, 1, 260, 262, 270}), "a<s>a a<x>");

  config["added_tokens_decoder"] = {{"260", {{"content", "<x>"}}}};
  folder.write_json("tokenizer_config.json", config);
  EXPECT_THAT(message_of([&] { load_tokenizer(folder.path()); }), HasSubstr("<x>"));
  folder.write_json("tokenizer_config.json", json{{"eos_token", "<nowhere>"}, {"add_bos_token", true}});
  tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->eos_id(), 266);  // behind the model's own
  EXPECT_TRUE(tokenizer->adds_bos());

  // LlamaTokenizer puts the dummy space once, or with `legacy` before whatever does not begin with one, or
  // never.
  config = {{"tokenizer_class", "LlamaTokenizer"}, {"added_tokens_decoder", {{"1", {{"content", "<s>"}}}}}};
  const auto ids = [&] {
    folder.write_json("tokenizer_config.json", config);
    return load_tokenizer(folder.path())->encode("a<s>a<s> a");
  };
  EXPECT_THAT(ids(), ElementsAre(262, 1, 260, 1, 262));
  config["legacy"] = true;
  EXPECT_THAT(ids(), ElementsAre(262, 1, 262, 1, 262));
  config["add_prefix_space"] = false;
  EXPECT_THAT(ids(), ElementsAre(260, 1, 260, 1, 262));
  config["tokenizer_class"] = "GPT2Tokenizer";
  EXPECT_THAT(message_of(ids), HasSubstr("needs a tokenizer.json"));
}

GgufWriter tiny_gguf(const SentencePieceModel& model) {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (const SentencePiece& piece : model.pieces) {
    tokens.push_back(piece.text);
    scores.push_back(piece.score);
    types.push_back(piece.type);
  }
  GgufWriter writer;
  writer.string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", tokens);
  writer.floats("tokenizer.ggml.scores", scores).integers("tokenizer.ggml.token_type", types);
  writer.integer("tokenizer.ggml.bos_token_id", 1).integer("tokenizer.ggml.eos_token_id", 2);
  return writer;
}

TEST(SentencePieceTokenizer, FromGguf) {
  const TemporaryFolder folder;
  const auto open = [&](const GgufWriter& writer) {
    return load_tokenizer(folder.write("vocab.gguf", writer.bytes()));
  };
  SentencePieceModel model = tiny_sentencepiece(kWords);
  model.pieces.push_back({"bab", 0, 4});
  const auto tokenizer = open(tiny_gguf(model)), original = load(model);
  for (const std::string text : {"ab b", "  a  b ", "é\n世😁", "abab <s>", ""}) {
    EXPECT_EQ(tokenizer->encode(text), original->encode(text)) << text;
  }
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_THAT(open(tiny_gguf(model).boolean("tokenizer.ggml.add_space_prefix", false))->encode("a"),
              ElementsAre(260));
  EXPECT_FALSE(open(tiny_gguf(model).boolean("tokenizer.ggml.add_bos_token", false))->adds_bos());

  // Files whose unknown piece is a control token name it.
  SentencePieceModel controlled = model;
  controlled.pieces[0].type = 3;
  EXPECT_EQ(open(tiny_gguf(controlled).integer("tokenizer.ggml.unknown_token_id", 0))->encode("ab b"),
            original->encode("ab b"));

  // Converters write spaces of user-defined tokens unescaped.
  SentencePieceModel spaces = model, escaped = model;
  spaces.pieces.push_back({"   ", 0, 4});
  escaped.pieces.push_back({"\u2581\u2581\u2581", 0, 4});
  EXPECT_EQ(open(tiny_gguf(spaces))->encode("a   b"), load(escaped)->encode("a   b"));
  EXPECT_NE(open(tiny_gguf(spaces))->encode("a   b"), original->encode("a   b"));

  const auto refused = [&](const GgufWriter& writer) {
    const auto file = folder.write("vocab.gguf", writer.bytes());
    return message_of([&] { load_tokenizer(file); });
  };
  EXPECT_THAT(refused(tiny_gguf(controlled)), HasSubstr("unk is not defined"));
  EXPECT_THAT(
      refused(GgufWriter().string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {"a"})),
      HasSubstr("scores"));
  EXPECT_THAT(refused(GgufWriter()
                          .string("tokenizer.ggml.model", "llama")
                          .strings("tokenizer.ggml.tokens", {"a", "b"})
                          .floats("tokenizer.ggml.scores", {1})),
              HasSubstr("1 values for 2 tokens"));
  EXPECT_THAT(refused(tiny_gguf(model).boolean("tokenizer.ggml.add_eos_token", true)),
              HasSubstr("add_eos_token is true"));
  // Of two pieces with one text the last is meant, an empty one never.
  model.pieces.push_back({"a", -1, 1});
  model.pieces.push_back({"", 0, 1});
  const auto doubled = open(tiny_gguf(model).boolean("tokenizer.ggml.add_space_prefix", false));
  EXPECT_EQ(doubled->vocab_size(), 269);
  EXPECT_THAT(doubled->encode("a"), ElementsAre(267));
}

/// An Error that names the file, or a tokenizer that works: never anything else.
void expect_error_or_tokenizer(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto file = folder.write("tokenizer.model", bytes);
  const std::string message = message_of([&] { load_tokenizer(file)->encode("ab a"); });
  if (!message.empty()) {
    EXPECT_THAT(message, HasSubstr("tokenizer.model"));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(SentencePieceTokenizer, DamagedModelsAreOneLineErrors) {
  const std::string whole = serialize_sentencepiece(tiny_sentencepiece(kWords));
  for (size_t length = 0; length < whole.size(); length += 7)
    expect_error_or_tokenizer(whole.substr(0, length));
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string damaged = whole;
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    expect_error_or_tokenizer(damaged);
  }
  const TemporaryFolder folder;
  for (const std::string& content :
       {std::string(), std::string("not a model"), whole.substr(0, whole.size() / 2 + 1)}) {
    const auto file = folder.write("tokenizer.model", content);
    EXPECT_THAT(message_of([&] { load_tokenizer(file); }), HasSubstr("tokenizer.model")) << content.size();
  }
}

TEST(SentencePieceTokenizer, CharacterMapsMustStayInside) {
  const std::string model = serialize_sentencepiece(tiny_sentencepiece(kWords));
  const auto with_map = [&](const std::string& map) {
    // normalizer_spec (field 3) { precompiled_charsmap (field 2) }, of less than 16384 bytes each.
    const auto field = [](char tag, const std::string& bytes) {
      return std::string{tag, static_cast<char>(bytes.size() | 0x80), static_cast<char>(bytes.size() >> 7)} +
             bytes;
    };
    return model + field(0x1A, field(0x12, map));
  };
  std::string map(4 + 1024 + 1, '\0');  // 256 units, all of offset 0, and one empty string
  map[1] = 4;
  EXPECT_EQ(message_of([&] { read_sentencepiece_traits(with_map(map), "m"); }), "");
  std::string far_offset = map, far_value = map, short_map = map.substr(0, 1000), open_string = map;
  far_offset[4 + 3] = 0x10;
  far_value[4 + 3] = static_cast<char>(0x80);
  far_value[4] = 1;
  open_string.back() = 'x';
  for (const std::string& bad : {far_offset, far_value, short_map, open_string, std::string("x")}) {
    EXPECT_THAT(message_of([&] { read_sentencepiece_traits(with_map(bad), "m"); }),
                HasSubstr("precompiled_charsmap"));
  }
}

}  // namespace
}  // namespace qeval::model
