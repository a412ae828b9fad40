#include <limits>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include "model/tokenizer/character_map.h"
#include "tests/model/tokenizer_fixtures.h"

namespace qeval::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// 259 "▁", 260 "a", 261 "b", 262 "▁a", 263 "ab", 264 "▁ab", 265 "▁▁".
const std::vector<std::string> kWords = {"▁", "a", "b", "▁a", "ab", "▁ab", "▁▁"};

std::unique_ptr<Tokenizer> load_sentencepiece(const SentencePieceModel& model) {
  const TemporaryFolder folder;
  return load_tokenizer(folder.write("tokenizer.model", serialize_sentencepiece(model)));
}

TEST(SentencePieceTokenizer, EncodesAndDecodes) {
  const auto tokenizer = load_sentencepiece(tiny_sentencepiece(kWords));
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
  const auto tokenizer = load_sentencepiece(model);
  EXPECT_THAT(tokenizer->encode("ab a"), ElementsAre(263, 262));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{262, 262}), " a a");
  EXPECT_NE(tokenizer->hash(), load_sentencepiece(tiny_sentencepiece(kWords))->hash());
}

TEST(SentencePieceTokenizer, ControlTokensInTextAreTextAndUserDefinedOnesAreTokens) {
  SentencePieceModel model = tiny_sentencepiece(kWords);
  model.pieces.push_back({"bab", 0, 4});
  const auto tokenizer = load_sentencepiece(model);
  EXPECT_THAT(tokenizer->encode("abab"), ElementsAre(262, 266));
  EXPECT_GT(tokenizer->encode("<s>").size(), 3U);
}

// A chat template spells them out: the prompt of a TinyLlama from GGUF had "</s>" as letters.
TEST(SentencePieceTokenizer, ControlTokensInPromptsAreTokens) {
  const auto tokenizer = load_sentencepiece(tiny_sentencepiece(kWords));
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
      const auto tokenizer = load_sentencepiece(model);
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

/// A folder with a tokenizer.model and no tokenizer.json.
class SentencePieceFolder : public testing::Test {
 protected:
  void write(const SentencePieceModel& model, const std::string& more = "") {
    folder_.write("tokenizer.model", serialize_sentencepiece(model) + more);
  }
  std::unique_ptr<Tokenizer> load_sentencepiece(const json& config) {
    folder_.write_json("tokenizer_config.json", config);
    return load_tokenizer(folder_.path());
  }
  std::vector<int32_t> ids(const json& config, std::string_view text) {
    return load_sentencepiece(config)->encode(text);
  }

  TemporaryFolder folder_;
};

TEST_F(SentencePieceFolder, DecidesBosAndAddedTokens) {
  write(tiny_sentencepiece(kWords));
  EXPECT_FALSE(load_tokenizer(folder_.path())->adds_bos());  // transformers 5 adds what it is told to
  EXPECT_EQ(load_tokenizer(folder_.path())->bos_id(), 1);
  EXPECT_EQ(load_tokenizer(folder_.path())->kind(), "BPE");
  const std::string plain = load_tokenizer(folder_.path())->hash();
  json config = {{"add_bos_token", false}, {"bos_token", {{"content", "</s>"}}}, {"eos_token", "<s>"}};
  auto tokenizer = load_sentencepiece(config);
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->bos_id(), 2);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_NE(tokenizer->hash(), plain);

  // Whatever id a file gives it, a token that is new takes the next one.
  config["added_tokens_decoder"] = {{"1", {{"content", "<s>"}, {"special", true}}},
                                    {"270", {{"content", "<x>"}}}};
  tokenizer = load_sentencepiece(config);
  EXPECT_EQ(tokenizer->vocab_size(), 267);
  EXPECT_THAT(tokenizer->encode("a<s>a<x>"), ElementsAre(262, 1, 262, 266));
  config["legacy"] = false;
  tokenizer = load_sentencepiece(config);
  EXPECT_THAT(tokenizer->encode("a<s>a a<x>"), ElementsAre(262, 1, 260, 262, 266));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{262, 1, 260, 262, 266}), "a<s>a a<x>");

  tokenizer = load_sentencepiece({{"eos_token", "<nowhere>"}, {"add_bos_token", true}});
  EXPECT_EQ(tokenizer->eos_id(), 266);  // behind the model's own
  EXPECT_TRUE(tokenizer->adds_bos());
}

// `null` is false, where leaving it out is true.
TEST_F(SentencePieceFolder, GeneralClassPutsTheDummySpaceByLegacy) {
  write(tiny_sentencepiece(kWords));
  EXPECT_THAT(ids(json::object(), "a<s>a<s> a"), ElementsAre(262, 1, 262, 1, 259, 262));
  EXPECT_THAT(ids({{"legacy", nullptr}}, "a<s>a<s> a"), ElementsAre(262, 1, 260, 1, 262));
  EXPECT_THAT(ids({{"legacy", false}}, " a"), ElementsAre(262));
  EXPECT_THAT(ids({{"legacy", true}}, " a"), ElementsAre(259, 262));
}

TEST_F(SentencePieceFolder, LlamasClassPutsTheDummySpaceOnceOrAlwaysOrNever) {
  write(tiny_sentencepiece(kWords));
  const auto llama = [&](const json& more) {
    json config = {{"tokenizer_class", "LlamaTokenizer"}};
    config.update(more);
    return ids(config, "a<s>a</s> a");
  };
  EXPECT_THAT(llama(json::object()), ElementsAre(262, 1, 260, 2, 262));
  EXPECT_THAT(llama({{"legacy", true}}), ElementsAre(262, 1, 262, 2, 262));
  EXPECT_THAT(llama({{"add_prefix_space", false}}), ElementsAre(260, 1, 260, 2, 262));
  // Merges go by the ids there: "▁a" + "b" is 264, as "▁" + "ab" is, before "b▁" could be.
  EXPECT_THAT(ids({{"tokenizer_class", "LlamaTokenizer"}}, "ab\u2581\u2581ab"), ElementsAre(264, 259, 264));
  // config.json names the class where nothing else does.
  folder_.write_json("config.json", json{{"model_type", "llama"}, {"tokenizer_class", "LlamaTokenizer"}});
  EXPECT_THAT(ids(json::object(), " a"), ElementsAre(262));
}

TEST_F(SentencePieceFolder, SpecialPiecesAreTokensUnlessTheFolderListsItsOwn) {
  SentencePieceModel model = tiny_sentencepiece(kWords);
  model.pieces.push_back({"<pad>", 0, 3});
  model.pieces.push_back({"bab", 0, 4});
  write(model);
  const json llama = {{"tokenizer_class", "LlamaTokenizer"}};
  EXPECT_THAT(ids(llama, "a<pad>abab"), ElementsAre(262, 266, 260, 267));
  json listed = llama;
  listed["additional_special_tokens"] = json::array();
  EXPECT_EQ(ids(listed, "<pad>").size(), 6U);
  listed["extra_special_tokens"] = {{"x", "<x>"}};  // names are no list
  EXPECT_THAT(ids(listed, "<pad><x>"), ElementsAre(267 - 1, 268));
  // The general class cuts at user-defined pieces, behind the dummy space.
  EXPECT_THAT(ids(json::object(), "abab"), ElementsAre(262, 267));
}

TEST_F(SentencePieceFolder, TheModelsOwnWhiteSpaceCountsForTheGeneralClassOnly) {
  SentencePieceModel model = tiny_sentencepiece(kWords);
  model.remove_extra_whitespaces = true;
  write(model);
  EXPECT_THAT(ids(json::object(), "  a  a "), ElementsAre(262, 262));
  EXPECT_THAT(ids({{"tokenizer_class", "LlamaTokenizer"}}, "  a  a "), ElementsAre(259, 262, 259, 262, 259));
  model.add_dummy_prefix = false;
  write(model);
  EXPECT_THAT(ids(json::object(), "a a"), ElementsAre(260, 262));
}

TEST_F(SentencePieceFolder, AddedTokensRenamePiecesOrContradictThem) {
  write(tiny_sentencepiece(kWords));
  json config = {{"added_tokens_decoder", {{"260", {{"content", "<x>"}}}}}};
  EXPECT_THAT(ids(config, "a<x>"), ElementsAre(259, 3 + 'a', 260));
  config["tokenizer_class"] = "LlamaTokenizer";
  EXPECT_THAT(message_of([&] { load_sentencepiece(config); }), HasSubstr("<x>"));
}

TEST_F(SentencePieceFolder, OtherClassesAreRefused) {
  write(tiny_sentencepiece(kWords));
  for (const char* name : {"GPT2Tokenizer", "T5TokenizerFast", "CodeLlamaTokenizer"}) {
    EXPECT_THAT(message_of([&] {
                  load_sentencepiece({{"tokenizer_class", name}});
                }),
                HasSubstr("tokenizer.json"))
        << name;
  }
  folder_.write_json("config.json", json{{"model_type", "mistral"}});  // loads any class by the general one
  EXPECT_THAT(ids({{"tokenizer_class", "T5Tokenizer"}}, "a"), ElementsAre(262));
}

// TrainerSpec {model_type: UNIGRAM}, which merges with what is there: the likeliest pieces, not merges.
TEST_F(SentencePieceFolder, UnigramModels) {
  SentencePieceModel model = tiny_sentencepiece({});
  for (const auto& [text, score] :
       {std::pair{"▁", -3.F}, {"a", -3.F}, {"▁a", -4.F}, {"ab", -1.F}, {"b", -3.F}})
    model.pieces.push_back({text, score, 1});
  write(model, std::string("\x12\x02\x18\x01", 4));
  EXPECT_THAT(ids(json::object(), "ab"), ElementsAre(259, 262));
  EXPECT_THAT(ids(json::object(), "aé"), ElementsAre(261, 3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(load_sentencepiece(json::object())->kind(), "Unigram");
  // Where no added token is called so, the unknown piece is still one.
  EXPECT_THAT(ids({{"unk_token", nullptr}}, "<unk>"), ElementsAre(259, 0));
}

/// A SentencePiece character map of single code points.
std::string character_map(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::vector<uint32_t> units(256, 0);
  std::string strings;
  std::map<std::string, uint32_t> blocks = {{"", 0}};  // where the children of a prefix begin
  const auto block_of = [&](const std::string& prefix) {
    const auto [block, added] = blocks.emplace(prefix, static_cast<uint32_t>(units.size()));
    if (added) units.resize(units.size() + 256, 0);
    return block->second;
  };
  for (const auto& [from, to] : entries) {
    for (size_t i = 0; i < from.size(); ++i) {
      const auto byte = static_cast<unsigned char>(from[i]);
      const uint32_t at = block_of(from.substr(0, i)) + byte, children = block_of(from.substr(0, i + 1));
      units[at] = (at ^ children) << 10 | (i + 1 == from.size() ? 1U << 8 : units[at] & 1U << 8) | byte;
    }
    units[block_of(from)] = 1U << 31 | static_cast<uint32_t>(strings.size());
    strings += to + '\0';
  }
  const auto bytes = static_cast<uint32_t>(4 * units.size());
  std::string map(reinterpret_cast<const char*>(&bytes), 4);
  return map.append(reinterpret_cast<const char*>(units.data()), bytes) + strings;
}

// A character and its marks are looked up as a whole where they are short, else one code point after another.
TEST(CharacterMap, MapsAsTokenizersDoes) {
  const CharacterMap map(
      character_map({{"\uFB01", "fi"}, {"\u2460", "1"}, {"e\u0301", "\u00E9"}, {"\u200B", ""}, {"\r", " "}}));
  EXPECT_EQ(map.apply("a\uFB01b\u2460"), "afib1");
  EXPECT_EQ(map.apply("e\u0301e"), "\u00E9e");
  EXPECT_EQ(map.apply("\u200Bx"), "x");
  EXPECT_EQ(map.apply("a\r\nb"), "a b");  // one character to a reader; "\r" is the entry it begins with
  EXPECT_EQ(map.apply("\u2460\u0301\u0301"), "1\u0301\u0301");
  EXPECT_EQ(map.apply("水👍"), "水👍");
}

TEST_F(SentencePieceFolder, CharacterMapsCountForTheGeneralClassOnly) {
  const std::string map = character_map({{"\u2460", "a"}});
  const auto field = [](char tag, const std::string& bytes) {
    return std::string{tag, static_cast<char>(bytes.size() | 0x80), static_cast<char>(bytes.size() >> 7)} +
           bytes;
  };
  write(tiny_sentencepiece(kWords), field(0x1A, field(0x12, map)));
  EXPECT_THAT(ids(json::object(), "\u2460"), ElementsAre(262));
  EXPECT_THAT(ids({{"tokenizer_class", "LlamaTokenizer"}}, "\u2460"),
              ElementsAre(259, 3 + 0xE2, 3 + 0x91, 3 + 0xA0));
}

TEST_F(SentencePieceFolder, WhatIsNoModelIsAnError) {
  const auto refused = [&](const std::string& bytes) {
    folder_.write("tokenizer.model", bytes);
    return message_of([&] { load_tokenizer(folder_.path()); });
  };
  EXPECT_THAT(refused(""), HasSubstr("no pieces"));
  EXPECT_THAT(refused("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
              HasSubstr("git lfs pull"));
  SentencePieceModel model = tiny_sentencepiece({"a\xFF"});
  EXPECT_THAT(refused(serialize_sentencepiece(model)), HasSubstr("piece 259"));
  model = tiny_sentencepiece({"a"});
  model.pieces[259].score = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refused(serialize_sentencepiece(model)), HasSubstr("score"));
  const std::string whole = serialize_sentencepiece(tiny_sentencepiece(kWords));
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::string damaged = whole;
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    folder_.write("tokenizer.model", damaged);
    const std::string message = message_of([&] { load_tokenizer(folder_.path())->encode("ab a"); });
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

GgufWriter tiny_sentencepiece_gguf(const SentencePieceModel& model) {
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
  const auto tokenizer = open(tiny_sentencepiece_gguf(model)), original = load_sentencepiece(model);
  for (const std::string text : {"ab b", "  a  b ", "é\n世😁", "abab <s>", ""}) {
    EXPECT_EQ(tokenizer->encode(text), original->encode(text)) << text;
  }
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_THAT(
      open(tiny_sentencepiece_gguf(model).boolean("tokenizer.ggml.add_space_prefix", false))->encode("a"),
      ElementsAre(260));
  EXPECT_FALSE(
      open(tiny_sentencepiece_gguf(model).boolean("tokenizer.ggml.add_bos_token", false))->adds_bos());

  // Files whose unknown piece is a control token name it.
  SentencePieceModel controlled = model;
  controlled.pieces[0].type = 3;
  EXPECT_EQ(
      open(tiny_sentencepiece_gguf(controlled).integer("tokenizer.ggml.unknown_token_id", 0))->encode("ab b"),
      original->encode("ab b"));

  // Converters write spaces of user-defined tokens unescaped.
  SentencePieceModel spaces = model, escaped = model;
  spaces.pieces.push_back({"   ", 0, 4});
  escaped.pieces.push_back({"\u2581\u2581\u2581", 0, 4});
  EXPECT_EQ(open(tiny_sentencepiece_gguf(spaces))->encode("a   b"),
            load_sentencepiece(escaped)->encode("a   b"));
  EXPECT_NE(open(tiny_sentencepiece_gguf(spaces))->encode("a   b"), original->encode("a   b"));

  const auto refused = [&](const GgufWriter& writer) {
    const auto file = folder.write("vocab.gguf", writer.bytes());
    return message_of([&] { load_tokenizer(file); });
  };
  EXPECT_THAT(refused(tiny_sentencepiece_gguf(controlled)), HasSubstr("unk is not defined"));
  EXPECT_THAT(
      refused(GgufWriter().string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {"a"})),
      HasSubstr("scores"));
  EXPECT_THAT(refused(GgufWriter()
                          .string("tokenizer.ggml.model", "llama")
                          .strings("tokenizer.ggml.tokens", {"a", "b"})
                          .floats("tokenizer.ggml.scores", {1})),
              HasSubstr("1 values for 2 tokens"));
  EXPECT_THAT(refused(tiny_sentencepiece_gguf(model).boolean("tokenizer.ggml.add_eos_token", true)),
              HasSubstr("add_eos_token is true"));
  // Of two pieces with one text the last is meant, an empty one never.
  model.pieces.push_back({"a", -1, 1});
  model.pieces.push_back({"", 0, 1});
  const auto doubled = open(tiny_sentencepiece_gguf(model).boolean("tokenizer.ggml.add_space_prefix", false));
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
  EXPECT_EQ(message_of([&] { read_sentencepiece(with_map(map), "m"); }), "");
  std::string far_offset = map, far_value = map, short_map = map.substr(0, 1000), open_string = map;
  far_offset[4 + 3] = 0x10;
  far_value[4 + 3] = static_cast<char>(0x80);
  far_value[4] = 1;
  open_string.back() = 'x';
  for (const std::string& bad : {far_offset, far_value, short_map, open_string, std::string("x")}) {
    EXPECT_THAT(message_of([&] { read_sentencepiece(with_map(bad), "m"); }),
                HasSubstr("precompiled_charsmap"));
  }
}

}  // namespace
}  // namespace qeval::model
